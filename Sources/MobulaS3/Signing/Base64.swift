internal import FoundationEssentials

/// The big-endian bytes of a checksum in base 64, as S3 writes them.
func base64(_ number: some FixedWidthInteger) -> String {
  withUnsafeBytes(of: number.bigEndian) { Data($0).base64EncodedString() }
}

func base64(_ bytes: [UInt8]) -> String { Data(bytes).base64EncodedString() }

/// `nil` for a text that is not base 64.
func bytes(base64 text: some StringProtocol) -> [UInt8]? { Data(base64Encoded: String(text)).map { Array($0) } }
