/// A value that holds secrets: `print`, `dump` and debuggers' summaries show its type's name and no more.
protocol Undisclosed: CustomStringConvertible, CustomReflectable {}

extension Undisclosed {
  var description: String { "\(Self.self)" }
  var customMirror: Mirror { Mirror(self, children: [:]) }
}

extension PlainRequest: Undisclosed {}
extension PlainAnswer: Undisclosed {}
extension EnvironmentVariables: Undisclosed {}
extension SharedConfigFile.Section: Undisclosed {}
extension ContainerEndpoint.Authorization: Undisclosed {}
extension VaultConfiguration.Authentication: Undisclosed {}
extension VaultDocument: Undisclosed {}
extension VaultDocument.Login: Undisclosed {}
extension VaultDocument.Data: Undisclosed {}
extension CredentialsDocument: Undisclosed {}
