internal import AsyncHTTPClient
internal import MobulaCore
internal import NIOCore
internal import NIOHTTP1

/// The text at `url`, at most 4 MiB, within 5 s: for metrics pages and the like, unsigned.
///
/// - Throws: `MobulaError` (`unavailable`) for everything that is not a 200.
package func plainHTTPGet(_ url: String) async throws -> String {
  do {
    let response = try await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(5))
    let text = String(buffer: try await response.body.collect(upTo: 4 * 1_048_576))
    if response.status == .ok { return text }
    throw MobulaError(.unavailable, "\(url) answers with status \(response.status.code): check what listens there.")
  } catch let error as MobulaError {
    throw error
  } catch {
    throw MobulaError(.unavailable, "\(url) does not answer (\(error)): check what listens there.")
  }
}
