import ICE
import Testing
import Wire

@Suite struct Establishing {
    let a4 = address("192.0.2.1", 1000)
    let a6 = address("2001:db8::1", 1000)
    let b4 = address("192.0.2.2", 2000)
    let b6 = address("2001:db8::2", 2000)

    @Test func fullOffererReachesLiteAnswererOverIPv6() {
        let network = Network(seed: 1)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, lite: true, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(offerer.events == [.verified(Path(local: a6, remote: b6)), .selected(Path(local: a6, remote: b6))])
        #expect(answerer.events == [.verified(Path(local: b6, remote: a6)), .selected(Path(local: b6, remote: a6))])
        #expect(offerer.agent.roundTrip == .milliseconds(20) && answerer.agent.roundTrip == nil)
    }

    @Test func fullAgentsAgreeOnTheBestPair() {
        let network = Network(seed: 2)
        let offerer = network.agent(.controlling, on: [a4, a6])
        let answerer = network.agent(.controlled, on: [b4, b6])
        network.introduce(offerer, answerer)
        network.run(for: .seconds(1))
        #expect(offerer.selected == [Path(local: a6, remote: b6)])
        #expect(answerer.selected == [Path(local: b6, remote: a6)])
        #expect(answerer.verified.count == 1 && answerer.agent.roundTrip == .milliseconds(20))
    }
}
