internal import COpenBLAS

/// Rows of a row-major matrix: where the first one begins, and how many numbers further each next one does, which is
/// at least a row's length.
struct Rows {
  let base: UnsafePointer<Float>
  let stride: Int
}

/// `c` = `alpha` · `a` `b`ᵀ + `beta` · `c`, with `a` [rows, inner], `b` [columns, inner] and `c` [rows, columns].
///
/// All extents are bounded by a checked configuration, so they fit into BLAS's 32 bits.
@inline(__always)
func multiply(
  _ a: Rows, transposed b: Rows, into c: UnsafeMutablePointer<Float>, stride: Int, rows: Int, columns: Int,
  inner: Int, alpha: Float = 1, beta: Float = 0
) {
  cblas_sgemm(
    CblasRowMajor, CblasNoTrans, CblasTrans, blasint(rows), blasint(columns), blasint(inner), alpha, a.base,
    blasint(a.stride), b.base, blasint(b.stride), beta, c, blasint(stride))
}

/// `c` = `a` `b`, with `a` [rows, inner], `b` [inner, columns] and `c` [rows, columns].
@inline(__always)
func multiply(
  _ a: Rows, _ b: Rows, into c: UnsafeMutablePointer<Float>, stride: Int, rows: Int, columns: Int, inner: Int
) {
  cblas_sgemm(
    CblasRowMajor, CblasNoTrans, CblasNoTrans, blasint(rows), blasint(columns), blasint(inner), 1, a.base,
    blasint(a.stride), b.base, blasint(b.stride), 0, c, blasint(stride))
}

/// `y` = `alpha` · `matrix` `x` + `beta` · `y`, with `matrix` [rows, columns].
@inline(__always)
func multiply(
  _ matrix: Rows, vector x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, rows: Int, columns: Int,
  alpha: Float = 1, beta: Float = 0
) {
  cblas_sgemv(
    CblasRowMajor, CblasNoTrans, blasint(rows), blasint(columns), alpha, matrix.base, blasint(matrix.stride), x, 1,
    beta, y, 1)
}

/// `y` = `alpha` · `matrix`ᵀ `x`, with `matrix` [rows, columns].
@inline(__always)
func multiply(
  transposed matrix: Rows, vector x: UnsafePointer<Float>, into y: UnsafeMutablePointer<Float>, rows: Int,
  columns: Int, alpha: Float = 1
) {
  cblas_sgemv(
    CblasRowMajor, CblasTrans, blasint(rows), blasint(columns), alpha, matrix.base, blasint(matrix.stride), x, 1, 0, y,
    1)
}

/// Work on one matrix is done by the thread that asks for it: an actor is one thread, and there are many of them.
///
/// It holds for the whole process, and is done once.
let oneThreadEach: Void = openblas_set_num_threads(1)
