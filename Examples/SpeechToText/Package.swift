// swift-tools-version: 6.2
import PackageDescription

/// One block of settings for every Swift target: what is on here is on everywhere.
let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  .treatAllWarnings(as: .error),
]

let package = Package(
  name: "SpeechToText",
  products: [
    .library(name: "SpeechModel", targets: ["SpeechModel"]),
    .executable(name: "mobula-speech", targets: ["MobulaSpeech"]),
  ],
  dependencies: [
    .package(name: "mobula", path: "../.."),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
  ],
  targets: [
    .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
    .systemLibrary(name: "CSndfile", pkgConfig: "sndfile", providers: [.apt(["libsndfile1-dev"])]),
    // malloc_trim, which Swift's Glibc leaves out.
    .systemLibrary(name: "CMalloc"),
    .target(name: "SpeechModel", dependencies: ["COpenBLAS", "CSndfile"], swiftSettings: settings),
    .executableTarget(
      name: "MobulaSpeech",
      dependencies: [
        "SpeechModel", "CMalloc", "COpenBLAS", .product(name: "Mobula", package: "mobula"),
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: settings),
    .testTarget(
      name: "SpeechModelTests", dependencies: ["SpeechModel"], resources: [.copy("Fixtures")], swiftSettings: settings),
    .testTarget(name: "MobulaSpeechTests", dependencies: ["MobulaSpeech"], swiftSettings: settings),
  ]
)
