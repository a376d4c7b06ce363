import Glibc
import MobulaCore
import MobulaSupervisor

/// Prints for people: what a terminal would act on is escaped. Stands before Swift's own in all of the tool.
func print(_ text: String) { Swift.print(text.printableLines) }

/// What this program was told, in arguments and in its environment.
enum ProgramInput {
  /// Ends the program with status 64 when an argument, or a variable that is read, is no UTF-8: Swift would repair it,
  /// and so name another file or object.
  static func refuseWhatIsNoText() {
    for index in 1..<max(1, Int(CommandLine.argc)) {
      guard let argument = CommandLine.unsafeArgv[index], let wrong = wrong(argument) else { continue }
      refuse("The argument \"\(wrong)\" is not in UTF-8: write it in UTF-8, or rename the file.")
    }
    var pointer = environ
    while let entry = pointer.pointee {
      pointer += 1
      guard let wrong = wrong(entry), let equals = wrong.utf8.firstIndex(of: UInt8(ascii: "=")) else { continue }
      let name = String(wrong[..<equals])
      guard isRead(name) else { continue }
      let value = wrong[wrong.index(after: equals)...]
      refuse("The environment variable \(name) is not in UTF-8, but \"\(value)\": write it in UTF-8, or unset it.")
    }
  }

  private static func isRead(_ name: String) -> Bool {
    ["MOBULA_", "AWS_", "VAULT_", "XDG_"].contains { name.hasPrefix($0) }
      || ["HOME", "PATH", "TMPDIR"].contains(name)
  }

  /// The bytes for people, unless they are UTF-8.
  private static func wrong(_ text: UnsafePointer<CChar>) -> String? {
    let bytes = UnsafeRawBufferPointer(start: text, count: strlen(text))
    return String(validating: bytes, as: UTF8.self) == nil ? MobulaCore.printable(bytes: bytes) : nil
  }

  private static func refuse(_ sentence: String) -> Never {
    Log.error(sentence)
    exit(EX_USAGE)
  }
}
