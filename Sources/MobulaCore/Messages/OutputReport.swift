/// What workers of a job have written, on its way to the driver.
package struct OutputReport: Codable, Sendable {
  package struct Line: Codable, Sendable, Hashable {
    /// The worker's, as `WorkerID.short`.
    package var worker: String
    package var text: String

    package init(worker: String, text: String) {
      self.worker = worker
      self.text = text
    }
  }

  package var job: JobID
  /// The name of the pod that they are of.
  package var pod: String
  package var lines: [Line]
  /// So many more were written than are shown.
  package var dropped: Int

  package init(job: JobID, pod: String, lines: [Line], dropped: Int) {
    self.job = job
    self.pod = pod
    self.lines = lines
    self.dropped = dropped
  }
}
