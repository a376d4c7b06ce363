internal import Foundation

func logarithm(_ x: Float) -> Float { log(x) }
func logarithm(_ x: Double) -> Double { log(x) }
func logarithm10(_ x: Double) -> Double { log10(x) }
func power(_ base: Double, _ exponent: Double) -> Double { pow(base, exponent) }
func cosine(_ angle: Double) -> Double { cos(angle) }
func sine(_ angle: Double) -> Double { sin(angle) }
