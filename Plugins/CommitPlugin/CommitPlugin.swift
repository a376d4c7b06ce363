import Foundation
import PackagePlugin

/// Writes down which commit a build is of, before each build. Outside of a git checkout it is none.
@main struct CommitPlugin: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    let output = context.pluginWorkDirectoryURL.appending(path: "Commit")
    return [
      .prebuildCommand(
        displayName: "The commit of this build", executable: URL(filePath: "/bin/sh"),
        arguments: [
          context.package.directoryURL.appending(path: "Scripts/commit.sh").path(percentEncoded: false),
          context.package.directoryURL.path(percentEncoded: false), output.path(percentEncoded: false),
        ], outputFilesDirectory: output)
    ]
  }
}
