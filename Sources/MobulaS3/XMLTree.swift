internal import Foundation
internal import FoundationXML

/// An XML element with its text and children; attributes and namespaces don't matter to S3's answers.
struct XMLTree: Sendable {
  let name: String
  /// The element's own text, exactly: keys may begin or end with spaces.
  var text = ""
  var children: [XMLTree] = []

  subscript(name: String) -> String? { children.first { $0.name == name }?.text }

  /// Reads a whole document; `nil` when it is not well-formed or nested deeper than any answer of S3's.
  static func parse(_ bytes: [UInt8]) -> XMLTree? {
    let parser = XMLParser(data: Data(bytes))
    let builder = XMLTreeBuilder()
    parser.delegate = builder
    parser.shouldProcessNamespaces = true
    guard parser.parse() else { return nil }
    return builder.root
  }
}

private final class XMLTreeBuilder: NSObject, XMLParserDelegate {
  private static let maximumDepth = 32
  private var open: [XMLTree] = []
  var root: XMLTree?

  func parser(
    _ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?,
    attributes: [String: String]
  ) {
    guard open.count < Self.maximumDepth else { return parser.abortParsing() }
    open.append(XMLTree(name: name))
  }

  func parser(_ parser: XMLParser, foundCharacters text: String) {
    guard !open.isEmpty else { return }
    open[open.count - 1].text += text
  }

  func parser(_ parser: XMLParser, foundCDATA data: Data) {
    self.parser(parser, foundCharacters: String(decoding: data, as: UTF8.self))
  }

  func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) {
    guard let element = open.popLast() else { return }
    if open.isEmpty { root = element } else { open[open.count - 1].children.append(element) }
  }
}
