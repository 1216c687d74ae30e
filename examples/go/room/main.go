// A room in the terminal, whose members can be cut off and come back complete. Two of them with one Redis share it.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"reconnect"
)

const usage = `usage: room-go [--store URL] [--room NAME] [--window N]

  --store URL    redis://HOST:PORT, sqlite:PATH (default: in memory)
  --room NAME    (default lobby)
  --window N     messages kept (default 50)

Then, line by line:

  NAME: TEXT     NAME says something to the others; who is not there joins
  /cut NAME      the connection of NAME ends
  /back NAME     NAME comes back
  /leave NAME    NAME is gone for good
`

// client is what a client knows, and what the host knows of its connection. In a real host the two are on different
// machines.
type client struct {
	member    reconnect.Member
	connected bool
	last      uint64
	position  reconnect.Position
	token     string
}

type room struct {
	*reconnect.ReplayBuffer
	name    string
	clients map[string]*client
	order   []string // of the clients
}

func (r *room) each(do func(string, *client)) {
	for _, name := range r.order {
		do(name, r.clients[name])
	}
}

// join begins a connection: a new one, or one that goes on where the last one ended.
func (r *room) join(name string, c *client, resume bool) {
	joined, err := r.Join(context.Background(), &reconnect.JoinRequest{
		Room: r.name, User: name, Resume: resume, Position: c.position, Token: c.token,
	})
	if c.connected = err == nil; !c.connected {
		fmt.Printf("%s: %v\n", name, err)
		return
	}
	c.member, c.token = joined.Member, joined.Token
	r.caughtUp(name, c, &joined.Recovery)
}

func (r *room) caughtUp(name string, c *client, recovery *reconnect.Recovery) {
	c.last, c.position = recovery.Sequence, recovery.Position
	verdict(name, recovery.Verdict, recovery.Reason)
	for _, message := range recovery.Messages {
		fmt.Printf("%s << %s\n", name, message.Data)
	}
}

func verdict(name string, verdict reconnect.Verdict, reason reconnect.LossReason) {
	if reason != 0 {
		fmt.Printf("%s: %v (%v)\n", name, verdict, reason)
	} else {
		fmt.Printf("%s: %v\n", name, verdict)
	}
}

// event is one that nobody asked for. Events and lines are handled by one goroutine, so that a join is noted before the
// messages that come after it; where they are not, JoinRequest.InOrder is the place for that.
func (r *room) event(event reconnect.Event) {
	switch event := event.(type) {
	case reconnect.ReplayMessageEvent:
		// To each connection that it is for and that does not have it already.
		r.each(func(name string, c *client) {
			if !c.connected || c.last >= event.Sequence {
				return
			}
			c.last, c.position = event.Sequence, event.Position
			if name != event.User {
				fmt.Printf("%s < %s\n", name, event.Data)
			}
		})
	case reconnect.ReplayGapEvent:
		r.each(func(name string, c *client) {
			if !c.connected {
				return
			}
			if recovery, err := r.Recover(context.Background(), c.member, c.position, nil); err != nil {
				fmt.Printf("%s: %v\n", name, err)
			} else {
				r.caughtUp(name, c, recovery)
			}
		})
	case reconnect.ReplayReturnedEvent:
		if c := r.clients[event.Member.User]; c != nil {
			c.member, c.token, c.position = event.Member, event.Token, event.Position
			c.connected = event.Err == nil
			verdict(event.Member.User, event.Verdict, event.Reason)
		}
	case reconnect.ReplayStoreEvent:
		fmt.Printf("store: %v\n", event.State)
	}
}

func (r *room) line(line string) {
	ctx := context.Background()
	command, name, _ := strings.Cut(line, " ")
	c := r.clients[name]
	var err error
	switch {
	case line == "":
	case !strings.HasPrefix(line, "/"):
		r.say(line)
	case c == nil:
		fmt.Print(usage)
	case command == "/cut" && c.connected:
		c.connected = false
		err = r.Drop(ctx, c.member)
	case command == "/back" && !c.connected:
		r.join(name, c, true)
	case command == "/leave" && c.token != "":
		member := c.member
		*c = client{}
		err = r.Leave(ctx, member)
	}
	if err != nil {
		fmt.Printf("%s: %v\n", name, err)
	}
}

func (r *room) say(line string) {
	name, _, ok := strings.Cut(line, ": ")
	if !ok || name == "" {
		fmt.Print(usage)
		return
	}
	c := r.clients[name]
	if c == nil {
		c = &client{}
		r.clients[name] = c
		r.order = append(r.order, name)
	}
	if c.token == "" {
		r.join(name, c, false)
	}
	if !c.connected {
		fmt.Printf("%s: is not connected\n", name)
		return
	}
	_, err := r.Publish(context.Background(), &reconnect.Publication{Room: r.name, User: name, Data: []byte(line)})
	if err != nil {
		fmt.Printf("%s: %v\n", name, err)
	}
}

func main() {
	store := flag.String("store", "", "")
	name := flag.String("room", "lobby", "")
	window := flag.Uint("window", 0, "")
	flag.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	flag.Parse()
	if err := run(*store, *name, uint32(*window)); err != nil {
		fmt.Fprintf(os.Stderr, "room-go: %v\n", err)
		os.Exit(1)
	}
}

func run(store, name string, window uint32) error {
	buffer, err := reconnect.NewReplayBuffer(&reconnect.ReplayConfig{Store: store, Window: window})
	if err != nil {
		return err
	}
	defer buffer.Close()
	r := &room{ReplayBuffer: buffer, name: name, clients: map[string]*client{}}
	// Before the first join, so that nothing is in between.
	if err := r.Subscribe(context.Background(), name); err != nil {
		return err
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for input := bufio.NewScanner(os.Stdin); input.Scan(); {
			lines <- input.Text()
		}
	}()
	for {
		select {
		case event := <-r.Events(): // what is there already comes first
			r.event(event)
			continue
		default:
		}
		select {
		case event := <-r.Events():
			r.event(event)
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			r.line(line)
		}
	}
}
