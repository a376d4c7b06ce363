import MobulaCore
import Testing

struct ResourcesTests {
  @Test func amountsAddUpExactly() {
    let tenth: ResourceAmount = 0.1
    #expect(tenth + 0.2 == 0.3)
    #expect((0..<10).reduce(ResourceAmount.zero) { sum, _ in sum + tenth } == 1)
    #expect(ResourceAmount(0.00004) == .zero)
    #expect(ResourceAmount(0.00006) == ResourceAmount(tenThousandths: 1))
  }

  @Test(arguments: [
    (0, "0"), (10_000, "1"), (1, "0.0001"), (2500, "0.25"), (1_000_500, "100.05"), (-5000, "-0.5"), (-12_500, "-1.25"),
  ])
  func amountsArePrinted(tenThousandths: Int, text: String) {
    let amount = ResourceAmount(tenThousandths: tenThousandths)
    #expect(amount.description == text)
    #expect(ResourceAmount(text) == (tenThousandths < 0 ? nil : amount))
  }

  @Test func amountsStayAtTheEnd() {
    #expect(ResourceAmount(Int.max) == ResourceAmount(tenThousandths: .max))
    #expect(ResourceAmount(1e30) == ResourceAmount(tenThousandths: .max))
    #expect(ResourceAmount(-Double.infinity) == ResourceAmount(tenThousandths: .min))
    #expect(ResourceAmount(Double.nan) == .zero)
    #expect(ResourceAmount(tenThousandths: .min).description == "-922337203685477.5808")
  }

  @Test(arguments: ["", "-1", "nan", "inf", "1e20", "one", "1 ", "1,5", "0x10", "1e3"])
  func otherTextIsNoAmount(text: String) { #expect(ResourceAmount(text) == nil) }

  @Test func textIsRead() throws {
    let resources = try Resources(parsing: " worker_pod_b=3, GPU = 0.5,memory=4GB,CPU=0")
    #expect(resources == ["worker_pod_b": 3, "GPU": 0.5, "memory": 4_000_000_000])
    #expect(resources.description == "GPU=0.5,memory=4 GB,worker_pod_b=3")
    #expect(try Resources(parsing: resources.description) == resources)
    #expect(try Resources(parsing: "") == Resources())
  }

  @Test(arguments: [
    ("GPU", "\"GPU\" is not a resource"), ("=1", "\"=1\" is not a resource"), ("a=1,a=2", "\"a=2\" is not a resource"),
    ("a=1,b=two", "The amount \"two\" of b"), ("a=-1", "The amount \"-1\" of a"), ("a=", "The amount \"\" of a"),
    ("memory=4XB", "The amount \"4XB\" of memory"), ("memory=1000TB", "The amount \"1000TB\" of memory"),
  ])
  func errorsNameThePart(text: String, part: String) {
    #expect { try Resources(parsing: text) } throws: { error in
      guard let error = error as? MobulaError else { return false }
      return error.code == .invalidArgument && error.message.hasPrefix(part)
    }
  }

  @Test func zeroIsAbsence() throws {
    var resources: Resources = ["a": 0, "b": 1]
    #expect(resources.amounts.keys.sorted() == ["b"])
    resources["b"] = 0
    #expect(resources == Resources())
    let bytes = try CBOREncoder().encode(["amounts": ["a": 0, "b": 10_000]])
    #expect(try CBORDecoder().decode(Resources.self, from: bytes) == ["b": 1])
  }

  @Test func demandIsCoveredOrNot() {
    let pod: Resources = ["CPU": 2, "GPU": 0.5]
    #expect(pod.covers([:]))
    #expect(pod.covers(["CPU": 2, "GPU": 0.5]))
    #expect(!pod.covers(["CPU": 2.0001]))
    #expect(!pod.covers(["memory": 1]))
    let left = pod - ["CPU": 2, "GPU": 1]
    #expect(left == ["GPU": -0.5])
    #expect(!left.covers(["GPU": 0.1]))
    #expect(left + ["CPU": 2, "GPU": 1] == pod)
  }

  @Test func resourcesTravel() throws {
    let resources: Resources = ["CPU": 2, "GPU": 0.5]
    #expect(try CBORDecoder().decode(Resources.self, from: CBOREncoder().encode(resources)) == resources)
  }
}
