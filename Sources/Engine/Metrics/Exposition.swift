package import Wire

/// Writes Prometheus' text format 0.0.4, one family of samples after the other.
package struct Exposition {
    package enum Kind: String {
        case counter
        case gauge
        case histogram
    }

    package typealias Label = (name: String, value: String)

    package private(set) var text = ""
    private var name = ""

    package init() { text.reserveCapacity(32 * 1024) }

    /// Begins a family. A name comes once.
    package mutating func family(_ name: String, _ kind: Kind, _ help: String) {
        self.name = name
        text += "# HELP \(name) \(Exposition.escaped(help, quotes: false))\n# TYPE \(name) \(kind.rawValue)\n"
    }

    /// A family of one sample without labels.
    package mutating func single(_ name: String, _ kind: Kind, _ help: String, _ value: some BinaryInteger) {
        family(name, kind, help)
        sample(value)
    }

    package mutating func single(_ name: String, _ kind: Kind, _ help: String, _ value: Double) {
        family(name, kind, help)
        sample(value)
    }

    package mutating func sample(_ value: some BinaryInteger, _ labels: Label...) { line("", labels, String(value)) }

    package mutating func sample(_ value: Double, _ labels: Label...) { line("", labels, Exposition.number(value)) }

    mutating func sample(_ reading: Histogram.Reading, _ labels: Label...) {
        for (index, count) in reading.cumulative.enumerated() {
            let bound = index < Histogram.bounds.count ? Exposition.number(Histogram.bounds[index].seconds) : "+Inf"
            line("_bucket", labels + [("le", bound)], String(count))
        }
        line("_sum", labels, Exposition.number(reading.sum.seconds))
        line("_count", labels, String(reading.count))
    }

    /// `counts`: how many were at most as long as the bound of the same place, and above the one before; the last one: longer
    /// than all.
    package mutating func histogram(bounds: [Duration], counts: [Int], sum: Duration) {
        var total = 0
        for (index, count) in counts.enumerated() {
            total &+= count
            let bound = index < bounds.count ? Exposition.number(bounds[index].seconds) : "+Inf"
            line("_bucket", [("le", bound)], String(total))
        }
        line("_sum", [], Exposition.number(sum.seconds))
        line("_count", [], String(total))
    }

    private mutating func line(_ suffix: String, _ labels: [Label], _ value: String) {
        text += name
        text += suffix
        if !labels.isEmpty {
            let list = labels.map { "\($0.name)=\"\(Exposition.escaped($0.value, quotes: true))\"" }
            text += "{" + list.joined(separator: ",") + "}"
        }
        text += " " + value + "\n"
    }

    /// "label_value can be any sequence of UTF-8 characters, but the backslash (\), double-quote ("), and line feed (\n)
    /// characters have to be escaped"; in help texts quotes stay as they are.
    static func escaped(_ text: String, quotes: Bool) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": escaped += "\\\\"
            case "\n": escaped += "\\n"
            case "\"" where quotes: escaped += "\\\""
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    static func number(_ value: Double) -> String {
        if value.isNaN { return "NaN" }
        if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
        if value == value.rounded(), abs(value) < 1e15 { return String(Int64(value)) }
        return value.description
    }
}
