import CSystem
import DTLS
import Wire

extension Loop {
    var metrics: Metrics { engine.series }

    /// A new set: from now on for new peers. Those that are up keep the certificate they came with.
    func adopt(_ change: CertificateChange) {
        certificates = change.set
        tickets?.keys.setSecrets(TicketOffice.secrets(configuration, change.set))
        certificateCheck = now + engine.certificates.nextCheck(wallClock: Engine.wallClock)
        for (level, line) in change.notes { log(level, line) }
        guard change.isRotation else { return }
        var event = Event(.certificate)
        event.data = .text(change.set.current.certificate.fingerprint(.sha256).description)
        events.append(event)
        // The clients' tickets name the old one, which they can use for now.
        refreshAllTickets()
    }

    /// Making keys and writing files is nothing for this thread.
    func checkCertificate() {
        if engine.certificates.isDue(wallClock: Engine.wallClock) { engine.maintainCertificates() }
        certificateCheck = now + engine.certificates.nextCheck(wallClock: Engine.wallClock)
    }
}
