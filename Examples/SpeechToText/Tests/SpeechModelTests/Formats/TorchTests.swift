import Foundation
import Testing

@testable import SpeechModel

struct TorchTests {
  private func read(_ file: [UInt8]) throws -> [String: (shape: [Int], numbers: [Float])] {
    let file = ModelFile(name: "pytorch_model.bin", contents: file)
    return try withExtendedLifetime(file) {
      try TorchCheckpoint.tensors(file).mapValues { tensor in
        (tensor.shape, (0..<tensor.count).map { tensor.number($0) })
      }
    }
  }

  private func variant(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: "\(fixtures)/torch-variants/\(name).bin")))
  }

  @Test(arguments: ["ordered", "parameter", "view", "types"])
  func readsWhatTorchWrote(_ name: String) throws {
    let tensors = try read(try variant(name))
    let golden = try #require(try Golden.read().torch[name])
    #expect(Set(tensors.keys) == Set(golden.keys))
    for (key, expected) in golden {
      let tensor = try #require(tensors[key])
      #expect(tensor.shape == expected.shape)
      // Types that no weight may have are described, and refused where they are used.
      guard !["l", "d"].contains(key) else { continue }
      #expect(tensor.numbers.withUnsafeBytes { crc32($0) } == expected.crc, "\(name) \(key)")
    }
  }

  @Test func refusesWhatTorchWroteOtherwise() throws {
    let legacy = speechError { _ = try read(try variant("legacy")) }
    #expect(legacy?.code == .unsupported && legacy?.message.contains("before torch 1.6") == true)
    let module = speechError { _ = try read(try variant("module")) }
    #expect(module?.code == .badModel && module?.message.contains("was not called") == true)
    #expect(speechError { _ = try read(try variant("protocol4")) }?.code == .unsupported)
    #expect(speechError { _ = try read(try variant("transposed")) }?.message.contains("transposed") == true)
  }

  private static let numbers = (0..<6).flatMap { bytes(Float($0).bitPattern) }

  private func tensor(
    _ offset: Int, _ shape: [Int], _ strides: [Int], type: String = "FloatStorage", key: String = "0", count: Int = 6
  ) -> [UInt8] {
    torchFile(
      Pickle.stateDict("a", Pickle.tensor(Pickle.storage(type, key, count), offset, shape, strides)),
      storages: ["0": Self.numbers])
  }

  @Test func readsATensor() throws {
    #expect(try read(tensor(0, [2, 3], [3, 1]))["a"]?.numbers == [0, 1, 2, 3, 4, 5])
    #expect(try read(tensor(3, [3], [1]))["a"]?.numbers == [3, 4, 5])
    #expect(try read(tensor(1, [1, 2, 1], [99, 1, 7]))["a"]?.numbers == [1, 2])
    #expect(try read(tensor(6, [0, .max], [.max, 1]))["a"]?.numbers == [])
    #expect(try read(tensor(5, [], []))["a"]?.numbers == [5])
  }

  @Test func refusesManyTensorsOfOneStorage() throws {
    let numbers = [UInt8](repeating: 0, count: 40_000)
    func file(_ names: [String]) -> [UInt8] {
      let tensor = Pickle.tensor(Pickle.storage("FloatStorage", "0", 10_000), 0, [10_000], [1])
      var pickle: [UInt8] = [0x80, 2, 0x7D]
      for name in names { pickle += Pickle.text(name) + tensor + [0x73] }
      return torchFile(pickle + [0x2E], storages: ["0": numbers])
    }
    #expect(try read(file(["a", "lm_head.weight"])).count == 2)
    #expect(speechError { _ = try read(file(["a", "b"])) }?.code == .unsupported)
  }

  @Test func refusesTensorsOutsideTheirStorage() throws {
    for (offset, shape, strides) in [
      (1, [2, 3], [3, 1]), (-1, [2], [1]), (7, [0], [1]), (0, [-1], [1]), (0, [.max], [1]),
      (0, [.max, .max], [.max, 1]),
      (.max, [1], [1]), (.max, [.max], [1]), (.min, [1], [1]), (0, [1 << 62, 4], [4, 1]), (0, [2], [3]), (0, [2], [-1]),
      (0, [2, 3], [1, 2]), (0, [2], [1, 1]), (0, [2], [0]),
    ] {
      let error = speechError { _ = try read(tensor(offset, shape, strides)) }
      #expect(error != nil && error?.code != .system, "\(offset) \(shape) \(strides)")
    }
    for file in [
      tensor(0, [6], [1], key: "1"), tensor(0, [6], [1], key: "../data.pkl"), tensor(0, [6], [1], count: 7),
      tensor(0, [6], [1], count: 5), tensor(0, [6], [1], count: -6), tensor(0, [6], [1], count: .max),
      tensor(0, [6], [1], type: "DoubleStorage"), tensor(0, [6], [1], type: "QInt8Storage"),
    ] {
      #expect(speechError { _ = try read(file) }?.code == .badModel)
    }
  }

  /// Nothing of a pickle is ever called: a file that would leave a trace in Python leaves an error here.
  @Test func callsNothing() throws {
    let trace = FileManager.default.temporaryDirectory.appendingPathComponent("trace-\(UUID().uuidString)").path
    let command = Pickle.tuple([Pickle.text("touch \(trace)")])
    for (module, name) in [
      ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("__builtin__", "exec"), ("subprocess", "Popen"),
      ("torch", "load"), ("torch.nn.modules.linear", "Linear"), ("collections", "deque"),
      ("torch.FloatStorage", "__new__"),
    ] {
      let pickle = Pickle.stateDict("a", Pickle.global(module, name) + command + [0x52])
      let error = speechError { _ = try read(torchFile(pickle)) }
      #expect(error?.code == .badModel)
      #expect(error?.message.contains("\(module).\(name), which no state dict needs and was not called") == true)
    }
    // Calls of what is known, with what it isn't called with.
    for pickle in [
      Pickle.global("collections", "OrderedDict") + command + [0x52],
      Pickle.global("torch", "FloatStorage") + command + [0x52],
      Pickle.global("torch._utils", "_rebuild_tensor_v2") + command + [0x52],
      Pickle.text("os.system") + command + [0x52],
      Pickle.global("torch._utils", "_rebuild_parameter") + command + [0x52],
      Pickle.text("x") + Pickle.text("y") + [0x62],
    ] {
      #expect(speechError { _ = try read(torchFile(Pickle.stateDict("a", pickle))) }?.code == .badModel)
    }
    // The other operations that make Python import or call: INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1, PERSID, BUILD.
    for operations in ["ios\nsystem\n", "o", "\u{81}", "\u{93}", "\u{82}\u{1}", "Pos.system\n", "b"] {
      let pickle = Pickle.stateDict("a", command + operations.unicodeScalars.map { UInt8($0.value) })
      #expect(speechError { _ = try read(torchFile(pickle)) }?.code == .badModel)
    }
    #expect(!FileManager.default.fileExists(atPath: trace))
  }

  @Test func refusesPicklesThatMakeNoSense() throws {
    let nested = [UInt8](repeating: 0x29, count: 1) + [UInt8](repeating: 0x85, count: 1_000_000)
    let doubling = [UInt8]([0x29, 0x71, 0]) + (0..<1000).flatMap { _ in [UInt8]([0x68, 0, 0x86, 0x71, 0]) }
    for pickle: [UInt8] in [
      [], [0x2E], [0x80], [0x80, 2, 0x2E], [0x80, 2, 0x29, 0x2E], [0x7D, 0x7D, 0x2E], [0x74], [0x75], [0x85],
      [0x28, 0x85, 0x2E],
      [0x68, 0], [0x71, 0], [0x6A, 0, 0, 0, 0], [0x7D, 0x28, 0x4E, 0x75, 0x2E], [0x7D, 0x4E, 0x4E, 0x73, 0x2E], [0x51],
      [0x4E, 0x51],
      [0x52], [0x62], [0x8A, 255], [0x8A, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0x58, 255, 255, 255, 255],
      [0x58, 1, 0, 0, 0, 0xFF],
      [0x63, 0x61], [0x63, 0x0A, 0x0A], [0x28, 0x28, 0x28, 0x74, 0x74, 0x7D, 0x2E], nested, doubling,
      [UInt8](repeating: 0x28, count: 1_000_000), [UInt8](repeating: 0x7D, count: 1_000_000),
      [UInt8](repeating: 0x4E, count: 5 << 20),
    ] {
      #expect(speechError { _ = try read(torchFile(pickle)) }?.code == .badModel, "\(pickle.prefix(16))")
    }
    // Dimensions without end: a shape that is remembered costs two bytes for each tensor that has it.
    func ones(_ rank: Int) -> [UInt8] {
      let ones = Array(repeating: 1, count: rank)
      return tensor(5, ones, ones)
    }
    #expect(try read(ones(8))["a"]?.numbers == [5])
    for rank in [9, 100_000] { #expect(speechError { _ = try read(ones(rank)) }?.code == .badModel) }
    // A dictionary that holds itself ends nowhere, and is no tensor.
    let itself: [UInt8] = [0x80, 2, 0x7D, 0x71, 0] + Pickle.text("a") + [0x68, 0, 0x73, 0x2E]
    #expect(try read(torchFile(itself)).isEmpty)
  }
}

struct ZipArchiveTests {
  private func read(_ zip: ZipBuilder) throws -> [String: [UInt8]] {
    try zip.file.withUnsafeBytes { try ZipArchive($0, name: "x").entries.mapValues { Array($0) } }
  }

  private let entries = [
    ZipBuilder.Entry(name: "m/a", data: [1, 2, 3]), ZipBuilder.Entry(name: "m/b", data: []),
    ZipBuilder.Entry(name: "m/c", data: Array(repeating: 7, count: 100)),
  ]

  private func with(_ change: (inout ZipBuilder) -> Void) -> ZipBuilder {
    var zip = ZipBuilder(entries: entries)
    change(&zip)
    return zip
  }

  @Test func readsEntries() throws {
    let expected = ["m/a": [1, 2, 3], "m/b": [], "m/c": [UInt8](repeating: 7, count: 100)]
    #expect(try read(with { _ in }) == expected)
    #expect(try read(with { $0.comment = Array("PK\u{5}\u{6} is no record here".utf8) }) == expected)
    #expect(try read(with { $0.isZip64 = true }) == expected)
    #expect(
      try read(
        with {
          $0.entries[2].packed = .max
          $0.entries[2].size = .max
          $0.entries[2].extra = bytes(UInt16(1)) + bytes(UInt16(16)) + bytes(UInt64(100)) + bytes(UInt64(100))
        }) == expected)
    #expect(try read(ZipBuilder(entries: [])).isEmpty)
  }

  @Test func refusesLies() throws {
    let lies: [(inout ZipBuilder) -> Void] = [
      { $0.entries[0].size = 4 }, { $0.entries[0].packed = 4 },
      { ($0.entries[2].size, $0.entries[2].packed) = (1000, 1000) },
      { ($0.entries[2].size, $0.entries[2].packed) = (.max, .max) },
      { $0.entries[1].offset = 0 }, { $0.entries[1].offset = 1 }, { $0.entries[1].offset = .max },
      { $0.entries[1].name = "m/a" },
      { $0.count = 2 }, { $0.count = 4 }, { $0.count = .max }, { $0.directorySize = 0 }, { $0.directorySize = .max },
      { $0.directorySize = 46 }, { $0.directoryOffset = 0 }, { $0.directoryOffset = .max }, { $0.directoryOffset = 7 },
      { $0.entries[2].extra = bytes(UInt16(1)) + bytes(UInt16(99)) },
      {
        ($0.entries[2].size, $0.entries[2].packed) = (.max, .max)
        $0.entries[2].extra = bytes(UInt16(1)) + bytes(UInt16(16)) + bytes(UInt64.max) + bytes(UInt64.max)
      },
      {
        ($0.entries[0].size, $0.entries[0].packed) = (3 + 30 + 3, 3 + 30 + 3)
      },
    ]
    for (index, lie) in lies.enumerated() {
      #expect(speechError { _ = try read(with(lie)) }?.code == .badModel, "\(index)")
    }
    let compressed = speechError { _ = try read(with { $0.entries[0].method = 8 }) }
    #expect(compressed?.code == .unsupported && compressed?.message.contains("compressed or encrypted") == true)
    #expect(speechError { _ = try read(with { $0.entries[0].flags = 1 }) }?.code == .unsupported)
  }

  @Test func refusesWhatWasCutOff() throws {
    let file = try FixtureModel.memorisedS2T.bytes("pytorch_model.bin")
    for count in [0, 1, 4, 21, 22, 100, 70_000, file.count / 2, file.count - 1] {
      let file = Array(file[..<count])
      let error = speechError { _ = try file.withUnsafeBytes { _ = try ZipArchive($0, name: "x") } }
      #expect(error?.code == .badModel, "\(count)")
    }
  }
}
