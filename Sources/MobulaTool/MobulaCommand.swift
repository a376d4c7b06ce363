import ArgumentParser
import Glibc
import Mobula
import MobulaBench

/// The `mobula` command-line tool; in worker mode, a worker of the bench.
@main
struct MobulaCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mobula",
    abstract: "Moves models and other big objects into every process of a cluster that needs them.",
    discussion: """
      Examples:
        mobula start --head                            a cluster of one host, on this machine
        mobula start --address 10.0.0.1:7600 --token-file token
                                                       this machine joins a cluster
        mobula put model.safetensors                   into the store, under the file's name
        mobula get model.safetensors -o copy           on any host of the cluster
        mobula put model.safetensors s3://models/      from here to S3, and get -o s3://… likewise
        mobula broadcast model.safetensors             to every host, before anybody there asks for it
        mobula fetch s3://models/whisper/              from S3 into the cluster, each byte once
        mobula credentials                             whose credentials S3 would see, and until when
        mobula store                                   what this host's store holds, and for whom
        mobula certificates create --directory tls --cluster lab
                                                       for `mobula start --tls tls` on every host
        mobula bench                                   replication against S3, measured here
        mobula microbenchmark                          gets and puts a second
      """,
    version: ToolVersion.text,
    subcommands: [
      StartCommand.self, StopCommand.self, StatusCommand.self, PutCommand.self, GetCommand.self, ListCommand.self,
      RemoveCommand.self, HoldCommand.self,
      ReleaseCommand.self, StoreCommand.self, CertificatesCommand.self, FetchCommand.self,
      CredentialsCommand.self, BroadcastCommand.self,
      BenchCommand.self, MicrobenchmarkCommand.self, SimulateCommand.self,
      SuperviseCommand.self, HeadCommand.self,
      HostCommand.self, PodCommand.self,
    ])

  static func main() async {
    Interruption.openStandardStreams()
    Interruption.prepare()
    ProgramInput.refuseWhatIsNoText()
    if Worker.isRequested { await Worker.main() }
    let arguments = CommandLine.arguments.dropFirst()
    if arguments.first == LineRateProbe.argument { Glibc.exit(LineRateProbe.run(Array(arguments.dropFirst()))) }
    if let orders = BenchDriver.takeOrders() {
      do {
        Glibc.exit(try await BenchDriver.run(orders))
      } catch {
        Log.error("\(error)")
        Glibc.exit(1)
      }
    }
    await main(nil)
  }
}
