import Glibc
import MobulaCore
import Testing

struct SharedEnvironmentTests {
  @Test func workersGetWhatIsListed() {
    let mine = [
      "PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0", "MOBULA_LOG": "debug",
      "AWS_REGION": "eu-1", "OMP_API_KEY": "x", "LD_PRELOAD": "/x.so", "MOBULA_WORKER": "{}", "XDG_RUNTIME_DIR": "/run",
    ]
    #expect(
      Set(SharedEnvironment.forWorkers(mine).keys) == ["PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "MOBULA_LOG"])
  }

  @Test func secretsAreToldByTheirNames() {
    let secrets = [
      "AWS_ACCESS_KEY_ID", "aws_secret", "VAULT_ADDR", "MOBULA_TOKEN", "GITHUB_TOKEN", "DB_PASSWORD", "MY_SECRET_VALUE",
      "GOOGLE_APPLICATION_CREDENTIALS", "OPENAI_API_KEY",
    ]
    #expect(secrets.allSatisfy { SharedEnvironment.isSecret($0) })
    #expect(
      !["PATH", "LD_PRELOAD", "MOBULA_DIRECTORY", "KEYBOARD", "S3_BUCKET"].contains { SharedEnvironment.isSecret($0) })
    #expect(SharedEnvironment.withoutSecrets(["PATH": "a", "DB_PASSWORD": "b"]) == ["PATH": "a"])
  }
}
