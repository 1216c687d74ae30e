package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"time"

	"reconnect"
)

// echo sends every message back on its channel, and logs everything else, until the engine closes. A channel whose
// send queue is full is paused: its messages wait, those of the others do not.
func echo(events <-chan reconnect.Event) {
	log := bufio.NewWriter(os.Stderr)
	defer log.Flush()
	waiting := map[*reconnect.Channel][]reconnect.MessageEvent{}
	for {
		var event reconnect.Event
		var ok bool
		select {
		case event, ok = <-events:
		default:
			log.Flush() // before waiting
			event, ok = <-events
		}
		if !ok {
			return
		}
		switch event := event.(type) {
		case reconnect.MessageEvent:
			channel := event.Channel
			if queue := waiting[channel]; len(queue) > 0 {
				waiting[channel] = append(queue, event)
			} else if !sendBack(log, event) {
				waiting[channel] = append(queue, event)
				channel.Pause()
			}
		case reconnect.BufferedLowEvent:
			channel, queue := event.Channel, waiting[event.Channel]
			for len(queue) > 0 && sendBack(log, queue[0]) {
				queue[0] = reconnect.MessageEvent{}
				queue = queue[1:]
			}
			if waiting[channel] = queue; len(queue) == 0 {
				delete(waiting, channel)
				channel.Resume()
			}
		case reconnect.ChannelClosedEvent:
			delete(waiting, event.Channel)
			fmt.Fprintf(log, "peer %d: channel %d %q closed%s\n",
				event.Channel.Peer().ID(), event.Channel.ID(), event.Channel.Label(), because(event.Reason))
		case reconnect.ChannelOpenEvent:
			fmt.Fprintf(log, "peer %d: channel %d %q open\n",
				event.Channel.Peer().ID(), event.Channel.ID(), event.Channel.Label())
		case reconnect.PeerStateEvent:
			ticket := ""
			if event.Ticket {
				ticket = " (with a ticket)"
			}
			fmt.Fprintf(log, "peer %d: %v after %v%s%s\n",
				event.Peer.ID(), event.State, event.Age.Round(time.Millisecond), ticket, because(event.Reason))
		case reconnect.SessionEvent:
			fmt.Fprintf(log, "peer %d: session %s of client %s, %v, connection %d, away %v\n", event.Peer.ID(),
				event.Token, event.ClientID, event.Mode, event.Connections, event.Away.Round(time.Millisecond))
		case reconnect.LogEvent:
			fmt.Fprintln(log, event.Line)
		case reconnect.AddressesEvent:
			fmt.Fprintf(log, "addresses: %v\n", event.Addresses)
		case reconnect.FastReloadEvent:
			fmt.Fprintf(log, "fast reload: %v, by %v: %s\n", event.Setting, event.By, event.Detail)
		case reconnect.CertificateEvent:
			fmt.Fprintf(log, "certificate: %s\n", event.Fingerprint)
		case reconnect.StoreEvent:
			if event.Available {
				fmt.Fprintln(log, "session store: available")
			} else {
				fmt.Fprintf(log, "session store: unavailable: %s\n", event.Detail)
			}
		}
	}
}

// sendBack says whether the message is done with: sent, or impossible to send.
func sendBack(log *bufio.Writer, event reconnect.MessageEvent) bool {
	err := event.Channel.SendMessage(event.Data, event.Text)
	switch {
	case err == nil:
	case errors.Is(err, reconnect.ErrWouldBlock):
		return false
	case errors.Is(err, reconnect.ErrClosed), errors.Is(err, reconnect.ErrInvalidHandle): // its end is an event
	default:
		fmt.Fprintf(log, "peer %d: channel %d: %d bytes not echoed: %v\n",
			event.Channel.Peer().ID(), event.Channel.ID(), len(event.Data), err)
	}
	return true
}

func because(reason error) string {
	if reason == nil {
		return ""
	}
	return ": " + reason.Error()
}
