// swift-tools-version: 6.2
import PackageDescription

/// One block of settings for every Swift target: what is on here is on everywhere.
let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
  // For properties and methods of our own that return spans.
  .enableExperimentalFeature("Lifetimes"),
  .treatAllWarnings(as: .error),
]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioHTTP = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let crypto = Target.Dependency.product(name: "Crypto", package: "swift-crypto")
let log = Target.Dependency.product(name: "Logging", package: "swift-log")
let arguments = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let heap = Target.Dependency.product(name: "HeapModule", package: "swift-collections")
let http = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")
let lifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let signals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")

func library(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: settings)
}

let package = Package(
  name: "mobula",
  products: [
    .library(name: "Mobula", targets: ["Mobula"]),
    .executable(name: "mobula", targets: ["MobulaTool"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-collections", from: "1.2.0"),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
    // For `make docs` alone; nothing is linked with it.
    .package(url: "https://github.com/swiftlang/swift-docc-plugin", from: "1.5.0"),
  ],
  targets: [
    .target(name: "CMobula"),
    library("MobulaCore", ["CMobula", crypto]),
    library("MobulaWire", ["MobulaCore", nioCore, nioPosix, nioTLS, nioSSL, crypto, log]),
    library("MobulaStore", ["MobulaCore", "CMobula"]),
    library("MobulaTransfer", ["MobulaCore", "MobulaWire", "CMobula"]),
    library("MobulaS3", ["MobulaCore", nioCore, nioHTTP, nioPosix, nioSSL, http, crypto]),
    library("MobulaJournal", ["MobulaCore", grdb, log]),
    // What the head decides, as a value.
    library("MobulaControl", ["MobulaCore"]),
    library("MobulaHead", ["MobulaCore", "MobulaControl", "MobulaWire", "MobulaJournal", log]),
    library("MobulaHost", ["MobulaCore", "MobulaWire", "MobulaStore", "MobulaTransfer", "MobulaS3", log]),
    library("MobulaPod", ["MobulaCore", "MobulaWire", log]),
    library("Mobula", ["CMobula", "MobulaCore", "MobulaWire", "MobulaStore", log, heap, lifecycle]),
    // What keeps a host's processes: the supervisor, the directories, and the settings that it was started with.
    library(
      "MobulaSupervisor", ["CMobula", "MobulaCore", "MobulaStore", "MobulaWire", log, signals]),
    // Tables and progress on a terminal.
    library("MobulaTerminal", ["MobulaCore"]),
    // The runtime's own decisions over a simulated network.
    library("MobulaSimulation", ["MobulaCore", "MobulaControl", "MobulaTransfer"]),
    library(
      "MobulaBench",
      ["CMobula", "Mobula", "MobulaCore", "MobulaS3", "MobulaSimulation", "MobulaTerminal", "MobulaWire"]),
    // For tests alone.
    library("MobulaTestKit", ["MobulaCore", "MobulaWire"]),
    // The finer benchmarks, in this package so that one build serves all.
    .target(name: "CAllocationCount", path: "Benchmarks/CAllocationCount"),
    .executableTarget(
      name: "MobulaBenchmarks", dependencies: ["MobulaStore", "MobulaCore", "CAllocationCount"],
      path: "Benchmarks/MobulaBenchmarks", swiftSettings: settings),
    .executableTarget(
      name: "MobulaTool",
      dependencies: [
        "Mobula", "MobulaBench", "MobulaHead", "MobulaHost", "MobulaJournal", "MobulaPod", "MobulaS3", "MobulaStore",
        "MobulaSupervisor", "MobulaWire", "MobulaCore", "CMobula", "MobulaSimulation", "MobulaTerminal", arguments, log,
        signals,
      ],
      swiftSettings: settings, plugins: ["CommitPlugin"]),
    .plugin(name: "CommitPlugin", capability: .buildTool()),
    tests("MobulaCoreTests", ["MobulaCore", "MobulaTestKit"]),
    tests("MobulaWireTests", ["MobulaWire", "MobulaCore", "MobulaTestKit", nioCore, nioPosix, nioSSL]),
    // The processes around a store that its tests start.
    .executableTarget(
      name: "MobulaStoreProcess", dependencies: ["MobulaStore", "MobulaCore"], path: "Tests/MobulaStoreProcess",
      swiftSettings: settings),
    tests(
      "MobulaStoreTests", ["MobulaStore", "MobulaCore", "MobulaTestKit", "MobulaBenchmarks", "MobulaStoreProcess"]),
    tests(
      "MobulaTransferTests", ["MobulaTransfer", "MobulaWire", "MobulaCore", "MobulaSimulation", "MobulaTestKit"]),
    tests(
      "MobulaS3Tests",
      ["MobulaS3", "MobulaBench", "MobulaCore", "MobulaTestKit", "MobulaWire", crypto, nioCore, nioHTTP, http]),
    tests("MobulaJournalTests", ["MobulaJournal", "MobulaCore", grdb]),
    tests(
      "MobulaHeadTests", ["MobulaHead", "MobulaControl", "MobulaJournal", "MobulaWire", "MobulaCore", "MobulaTestKit"]),
    tests("MobulaSimulationTests", ["MobulaSimulation", "MobulaCore"]),
    tests("MobulaBenchTests", ["MobulaBench", "MobulaTerminal", "Mobula", "MobulaCore"]),
    tests("MobulaHostTests", ["MobulaHost", "MobulaS3", "MobulaStore", "MobulaWire", "MobulaCore", "MobulaTestKit"]),
    tests("MobulaPodTests", ["MobulaPod", "MobulaWire", "MobulaCore"]),
    tests("MobulaTests", ["Mobula", "MobulaTestKit", "MobulaWire", "MobulaCore"]),
    // A program as users write them, which the tests of the tool start.
    .executableTarget(
      name: "MobulaTestApp", dependencies: ["Mobula"], path: "Tests/MobulaTestApp", swiftSettings: settings),
    // Programs as users would write them first.
    .executableTarget(
      name: "MobulaTour", dependencies: ["Mobula"], path: "Examples/Tour", swiftSettings: settings),
    tests(
      "MobulaToolTests",
      [
        "MobulaTool", "MobulaTestApp", "MobulaTour", "Mobula", "MobulaBench", "MobulaS3", "MobulaSupervisor",
        "MobulaCore",
        "MobulaTestKit", "MobulaWire",
      ]),
  ]
)
