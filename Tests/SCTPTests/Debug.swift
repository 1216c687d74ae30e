import Testing
import Wire

@testable import SCTP

@Suite struct Debugging {
    @Test func one() {
        for seed in [299, 441, 460] as [UInt64] {
            let run = debugRun(seed)
            print(seed, run)
        }
    }
}
