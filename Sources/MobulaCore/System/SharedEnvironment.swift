internal import Glibc

/// What of a process's environment others may have.
///
/// Credentials for S3 and Vault are for the host's process, which alone reads S3: heads and pods are started without
/// what looks like a secret, and workers, which run the code of users, get nothing but what is listed here.
package enum SharedEnvironment {
  /// Variables that workers get from the pod they run in.
  package static let names: Set<String> = [
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "MOBULA_LOG", "SWIFT_BACKTRACE",
  ]
  /// What the names of others begin with that workers get: locale, threads of libraries, and GPUs.
  package static let prefixes = ["LC_", "OMP_", "OPENBLAS_", "MKL_", "CUDA_", "NVIDIA_", "ROCR_", "HIP_"]

  private static let secretPrefixes = ["AWS_", "VAULT_", "MOBULA_TOKEN"]
  private static let secretWords = ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY", "API_KEY"]

  /// Whether a variable's name says that its value is nobody else's.
  package static func isSecret(_ name: String) -> Bool {
    let name = name.uppercased()
    return secretPrefixes.contains { name.hasPrefix($0) } || secretWords.contains { name.contains($0) }
  }

  /// What a worker may have of this environment.
  package static func forWorkers(_ environment: [String: String]) -> [String: String] {
    environment.filter { name, _ in
      (names.contains(name) || prefixes.contains { name.hasPrefix($0) }) && !isSecret(name)
    }
  }

  /// What a process of the cluster may have that needs no secret: all but these.
  package static func withoutSecrets(_ environment: [String: String]) -> [String: String] {
    environment.filter { name, _ in !isSecret(name) }
  }

  /// Takes a variable away: its value is in no place any more where others find it. To be called before there are other
  /// threads that look at the environment.
  package static func take(_ name: String) -> String? {
    guard let value = getenv(name) else { return nil }
    let text = String(cString: value)
    memset(value, 0, strlen(value))
    unsetenv(name)
    return text
  }

  /// Moves the values of this process's secrets out of the place that `/proc/PID/environ` shows to other processes of
  /// the user. They are read as before. To be called before there are other threads.
  package static func hideSecrets() {
    var index = 0
    while let entry = environ[index] {
      index += 1
      let text = String(cString: entry)
      guard let equals = text.firstIndex(of: "="), isSecret(String(text[..<equals])) else { continue }
      // The copy takes the entry's place in `environ`, and what was there is of no use to anybody.
      guard setenv(String(text[..<equals]), String(text[text.index(after: equals)...]), 1) == 0 else { continue }
      if environ[index - 1] != entry { memset(entry, 0, strlen(entry)) }
    }
  }
}
