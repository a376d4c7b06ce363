import Mobula
import MobulaCore

/// A model's directory in S3, of three files.
func directory(_ cluster: Cluster) async throws {
  let files = try await cluster.fetchDirectory("s3://models/m/")
  try check(Set(files.keys) == ["model.bin", "model.bin.txt", "sub/empty"], "its files: \(files.keys.sorted())")
  try check(files["model.bin"]?.count == 3_000_001, "the size of the model")
  try check(files["model.bin.txt"]?.withUnsafeBytes { Array($0) } == Array("text".utf8), "the text")
  let nothing = try await failure { _ = try await cluster.fetchDirectory("s3://models/nothing") }
  try check(nothing.code == .notFound, "the directory that there is not: \(nothing)")
}
