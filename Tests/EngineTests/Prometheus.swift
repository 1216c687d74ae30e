/// A reader of Prometheus' text format 0.0.4 that takes nothing but what its rules say, and what good exporters write.
struct Prometheus {
    struct Sample: Hashable {
        var name: String
        var labels: [String: String]
        var value: Double
    }

    struct Family {
        var type: String
        var help: String
        var samples: [Sample] = []

        /// Those of its labels that are not the bounds of buckets.
        var labelNames: Set<String> { Set(samples.flatMap(\.labels.keys)).subtracting(["le"]) }
    }

    struct Malformed: Error, CustomStringConvertible {
        var description: String
    }

    private(set) var families: [String: Family] = [:]
    /// As they come.
    private(set) var names: [String] = []

    init(_ text: String) throws {
        guard text.isEmpty || text.hasSuffix("\n") else { throw Malformed(description: "no line feed at the end") }
        var help: (name: String, text: String)?
        for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
            if line.hasPrefix("# HELP ") {
                let parts = line.dropFirst(7).split(separator: " ", maxSplits: 1)
                guard parts.count == 2, help == nil else { throw Malformed(description: "help: \(line)") }
                help = (String(parts[0]), String(parts[1]))
            } else if line.hasPrefix("# TYPE ") {
                let parts = line.dropFirst(7).split(separator: " ", omittingEmptySubsequences: false).map(String.init)
                guard parts.count == 2, let told = help, told.name == parts[0], families[parts[0]] == nil,
                    ["counter", "gauge", "histogram"].contains(parts[1]), Prometheus.isName(parts[0])
                else { throw Malformed(description: "type: \(line)") }
                families[parts[0]] = Family(type: parts[1], help: told.text)
                names.append(parts[0])
                help = nil
            } else {
                guard help == nil, let name = names.last else { throw Malformed(description: "no type: \(line)") }
                let sample = try Prometheus.sample(line)
                guard Prometheus.names(of: name, families[name]!.type).contains(sample.name) else {
                    throw Malformed(description: "a sample of another family: \(line)")
                }
                families[name]!.samples.append(sample)
            }
        }
        for (name, family) in families { try Prometheus.check(name, family) }
    }

    /// The value of the one sample with this name and these labels.
    func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
        let found = families.values.flatMap(\.samples).filter { $0.name == name && $0.labels == labels }
        return found.count == 1 ? found[0].value : nil
    }

    private static func names(of family: String, _ type: String) -> [String] {
        type == "histogram" ? ["_bucket", "_sum", "_count"].map { family + $0 } : [family]
    }

    private static func isName(_ text: String) -> Bool {
        guard let first = text.utf8.first, !(48...57).contains(first) else { return false }
        return text.utf8.allSatisfy {
            (97...122).contains($0) || (65...90).contains($0) || (48...57).contains($0) || $0 == 95
        }
    }

    private static func sample(_ line: Substring) throws -> Sample {
        func malformed() -> Malformed { Malformed(description: "sample: \(line)") }
        let end = line.firstIndex { $0 == "{" || $0 == " " } ?? line.endIndex
        var sample = Sample(name: String(line[..<end]), labels: [:], value: 0)
        guard isName(sample.name) else { throw malformed() }
        var rest = line[end...]
        if rest.first == "{" {
            repeat {
                rest.removeFirst()
                guard let equals = rest.firstIndex(of: "=") else { throw malformed() }
                let name = String(rest[..<equals])
                rest = rest[rest.index(after: equals)...]
                guard isName(name), sample.labels[name] == nil, rest.popFirst() == "\"" else { throw malformed() }
                sample.labels[name] = try quoted(&rest)
            } while rest.first == ","
            guard rest.popFirst() == "}" else { throw malformed() }
        }
        guard rest.popFirst() == " ", !rest.contains(" "), let value = Double(rest) else { throw malformed() }
        guard value.isNaN == (rest == "NaN"), value.isInfinite == rest.hasSuffix("Inf") else { throw malformed() }
        sample.value = value
        return sample
    }

    /// Up to the closing quotation mark, which is taken too.
    private static func quoted(_ rest: inout Substring) throws -> String {
        var value = ""
        while let character = rest.popFirst() {
            switch character {
            case "\"": return value
            case "\\":
                switch rest.popFirst() {
                case "\\": value += "\\"
                case "\"": value += "\""
                case "n": value += "\n"
                default: throw Malformed(description: "an unknown escape")
                }
            default: value.append(character)
            }
        }
        throw Malformed(description: "an open label")
    }

    private static func check(_ name: String, _ family: Family) throws {
        func require(_ condition: Bool, _ what: String) throws {
            guard condition else { throw Malformed(description: "\(name): \(what)") }
        }
        try require(!family.samples.isEmpty, "no samples")
        try require(!family.help.isEmpty, "no help")
        let keys = family.samples.map { [$0.name: ""].merging($0.labels) { $1 } }
        try require(Set(keys).count == keys.count, "a series twice")
        let labels = family.samples.map { Set($0.labels.keys).subtracting(["le"]) }
        try require(Set(labels).count == 1, "samples with different labels")
        try require(name.hasSuffix("_total") == (family.type == "counter"), "the suffix of a counter")
        if family.type == "counter" {
            let areCounts = family.samples.allSatisfy { $0.value >= 0 && $0.value == $0.value.rounded() }
            try require(areCounts, "not a count")
        }
        guard family.type == "histogram" else { return }
        for (_, samples) in Dictionary(grouping: family.samples, by: { $0.labels.filter { $0.key != "le" } }) {
            let buckets = samples.filter { $0.name.hasSuffix("_bucket") }
            let bounds = buckets.map { Double($0.labels["le"] ?? "") ?? .nan }
            try require(zip(bounds, bounds.dropFirst()).allSatisfy { $0 < $1 }, "bounds not in order")
            try require(bounds.last == .infinity && buckets.last?.labels["le"] == "+Inf", "no last bucket")
            try require(zip(buckets, buckets.dropFirst()).allSatisfy { $0.value <= $1.value }, "buckets that fall")
            let counts = samples.filter { $0.name.hasSuffix("_count") }
            try require(counts.count == 1 && counts[0].value == buckets.last?.value, "another count")
            try require(samples.count == buckets.count + 2, "no sum")
        }
    }
}
