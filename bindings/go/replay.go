package reconnect

// #include <reconnect.h>
import "C"

import (
	"context"
	"strings"
	"time"
	"unsafe"
)

// Position is where a client is in a room: opaque, 32 bytes of text. It may be shown to the client, and only a position
// that the buffer gave out is taken for one.
type Position string

// Verdict is what a client that comes back can be told.
type Verdict uint32

const (
	// Fresh: it came without a position.
	Fresh Verdict = C.RECONNECT_FRESH
	// Recovered: everything it missed is in the outcome.
	Recovered Verdict = C.RECONNECT_RECOVERED
	// RecoveredEmpty: it missed nothing.
	RecoveredEmpty Verdict = C.RECONNECT_RECOVERED_EMPTY
	// Lost: something cannot be proven to be there, and it must negotiate anew.
	Lost Verdict = C.RECONNECT_LOST
)

// String is "fresh", "recovered", "recovered-empty" or "lost".
func (v Verdict) String() string {
	return nameOf(uint32(v), "", "fresh", "recovered", "recovered-empty", "lost")
}

// LossReason is why a verdict is Lost, or why live messages may be missing. 0: neither.
type LossReason uint32

const (
	// LostEpoch: the position is of another incarnation of the room, or of no room.
	LostEpoch LossReason = C.RECONNECT_LOST_EPOCH
	// LostTrimmed: dropped for limits of count or bytes.
	LostTrimmed LossReason = C.RECONNECT_LOST_TRIMMED
	// LostExpired: became too old.
	LostExpired LossReason = C.RECONNECT_LOST_EXPIRED
	// LostLimit: more than one outcome, or a queue, may hold.
	LostLimit LossReason = C.RECONNECT_LOST_LIMIT
	// LostStore: the store did not answer.
	LostStore LossReason = C.RECONNECT_LOST_STORE
	// LostDegraded: messages went around the store while it was away.
	LostDegraded LossReason = C.RECONNECT_LOST_DEGRADED
)

// String is the reason's name, for example "trimmed"; empty for none.
func (r LossReason) String() string {
	return nameOf(uint32(r), "", "epoch", "trimmed", "expired", "limit", "store", "degraded")
}

// ResumeProblem is what was wrong with what a client presented. 0: nothing.
type ResumeProblem uint32

const (
	MalformedPosition ResumeProblem = C.RECONNECT_MALFORMED_POSITION
	ForgedPosition    ResumeProblem = C.RECONNECT_FORGED_POSITION
	// ForeignPosition: of another incarnation, or another room.
	ForeignPosition ResumeProblem = C.RECONNECT_FOREIGN_POSITION
	// FuturePosition: after the last message.
	FuturePosition ResumeProblem = C.RECONNECT_FUTURE_POSITION
	WrongToken     ResumeProblem = C.RECONNECT_WRONG_TOKEN
)

// String is the problem's name, for example "forged position"; empty for none.
func (p ResumeProblem) String() string {
	return nameOf(uint32(p), "", "malformed position", "forged position", "foreign position", "future position",
		"wrong token")
}

// MessageKind is what a message is to a WebRTC negotiation. A newer offer replaces the older one of the same sender,
// recipient and negotiation, and its candidates; a newer answer the older answer.
type MessageKind uint32

// The kinds.
const (
	OtherMessage     MessageKind = C.RECONNECT_REPLAY_OTHER
	OfferMessage     MessageKind = C.RECONNECT_REPLAY_OFFER
	AnswerMessage    MessageKind = C.RECONNECT_REPLAY_ANSWER
	CandidateMessage MessageKind = C.RECONNECT_REPLAY_CANDIDATE
)

// String is "other", "offer", "answer" or "candidate".
func (k MessageKind) String() string {
	return nameOf(uint32(k), "other", "offer", "answer", "candidate")
}

// Quality is how good a client's connection is.
type Quality uint32

// The qualities.
const (
	QualityUnknown Quality = C.RECONNECT_QUALITY_UNKNOWN
	QualityGood    Quality = C.RECONNECT_QUALITY_GOOD
	QualityFair    Quality = C.RECONNECT_QUALITY_FAIR
	QualityPoor    Quality = C.RECONNECT_QUALITY_POOR
)

// String is "unknown", "good", "fair" or "poor".
func (q Quality) String() string { return nameOf(uint32(q), "unknown", "good", "fair", "poor") }

func nameOf(number uint32, names ...string) string {
	if uint64(number) < uint64(len(names)) {
		return names[number]
	}
	return "unknown"
}

// Publication is a message to be stored.
type Publication struct {
	Room string
	// User is the sender, a member of the room; empty: the server itself.
	User string
	// To is the only recipient, a member of the room; empty: everybody.
	To string
	// Data is the message; it may be empty. It is copied before the call returns.
	Data []byte
	// Binary: otherwise it is text, in UTF-8.
	Binary bool
	Kind   MessageKind
	// Negotiation names the peer connection, where two users have several.
	Negotiation uint64
	// Priority: kept beside the window, as offers and answers are.
	Priority bool
	// Lifetime: worth nothing afterwards, and then not missed; 0: ReplayConfig.MessageTTL.
	Lifetime time.Duration
	// Key, if any: the same key by the same user in the same room is the same message.
	Key []byte
}

// Published is what became of a publication.
type Published struct {
	// Sequence is the message's number in its room.
	Sequence uint64
	// Position is that after the message.
	Position Position
	// Duplicate: the key was used before. This is the outcome of back then, and nothing was stored.
	Duplicate bool
	// Degraded: done without the store, which is away.
	Degraded bool
	// Err is why it was not stored, an *Error; nil if it was. Set by PublishMany alone.
	Err error
}

// Member is a connection of a user to a room. Of all connections of one user the newest counts; what is done with
// another one gives ErrStale.
type Member struct {
	Room, User string
	Generation uint64
}

// JoinRequest is how a connection begins.
type JoinRequest struct {
	Room, User string
	// Resume: it goes on where another one ended, with Position and Token as the client sent them, however wrong.
	Resume   bool
	Position Position
	Token    string
	// InOrder, if not nil, is called with the outcome before any live message of the room after it is in the channel
	// of events. The place to note which messages the connection still gets: those with a higher Sequence. It runs on
	// the goroutine that delivers for everybody: it must be quick, and must not call methods of the buffer.
	InOrder func(*Joined)
}

// Recovery is what a client missed.
type Recovery struct {
	Verdict Verdict
	// Reason is why it is Lost.
	Reason LossReason
	// Problem is what was wrong with what the client presented.
	Problem ResumeProblem
	// Messages are what it missed, in order.
	Messages []ReplayedMessage
	// Skipped is how many messages for this client are not among them because a newer one replaced them or their
	// lifetime passed.
	Skipped uint64
	// Sequence is the number of the last message before Position. Live messages with higher ones come as events.
	Sequence uint64
	// Position is where the client is with these messages.
	Position Position
	// Degraded: done without the store, which is away.
	Degraded bool
}

// ReplayedMessage is a message of a Recovery.
type ReplayedMessage struct {
	Sequence uint64
	// Data belongs to the receiver.
	Data        []byte
	Binary      bool
	Kind        MessageKind
	Negotiation uint64
}

// Joined is a connection that has begun.
type Joined struct {
	Recovery
	// Member is the connection.
	Member Member
	// Token is with what the client comes back; for this client only, and never for logs.
	Token string
	// Reconnection: the user was here before, and has not left.
	Reconnection bool
	// Away is how long it had no connection.
	Away time.Duration
	// Replaced is the generation that this one takes over from, whose connection the program closes; 0: none.
	Replaced uint64
}

// UserState is what is known of a user.
type UserState struct {
	// LastSequence is the highest number that the client is known to have, or was given.
	LastSequence uint64
	LastSeen     time.Time
	Connected    bool
	// Away is how long it has been gone; 0 while it is connected.
	Away    time.Duration
	Quality Quality
	// Connections of this user so far, the present one included.
	Connections uint32
}

// Measurement is what a client measured. Negative: not known.
type Measurement struct {
	Latency   time.Duration
	Loss      float64 // percent
	Jitter    time.Duration
	Bandwidth float64 // kbit/s
}

// QualityReport is what a Measurement means.
type QualityReport struct {
	Quality Quality
	// Recommendations are sentences.
	Recommendations []string
}

// Publish stores a message. The publications of one goroutine are stored in their order.
//
// ErrUnknownRoom, ErrUnknownUser, ErrUnknownRecipient, ErrTooLarge, ErrUnavailable, ErrInvalidArgument. With the context's
// error nothing is known of the outcome; publishing again with the same Key stores it once.
func (b *ReplayBuffer) Publish(ctx context.Context, publication *Publication) (Published, error) {
	operation, err := publication.operation()
	if err != nil {
		return Published{}, err
	}
	call := newReplayCall(1)
	if err := b.perform(ctx, call, &operation); err != nil {
		return Published{}, err
	}
	published := call.results[0].published()
	call.free()
	return published, published.Err
}

// PublishMany stores messages, in their order, with as few crossings to the library as there can be. The outcomes are
// in the order of the publications, each with its own Err. The error is the first of them, or why there are no outcomes:
// then they are nil.
func (b *ReplayBuffer) PublishMany(ctx context.Context, publications []Publication) ([]Published, error) {
	if len(publications) == 0 {
		return nil, nil
	}
	call := newReplayCall(len(publications))
	if err := b.performMany(ctx, call, len(publications), func(i int) (replayOperation, error) {
		return publications[i].operation()
	}); err != nil {
		return nil, err
	}
	var first error
	published := make([]Published, len(publications))
	for i := range published {
		published[i] = call.results[i].published()
		if first == nil {
			first = published[i].Err
		}
	}
	call.free()
	return published, first
}

// Join begins a connection. With Resume, the outcome has what was missed.
//
// ErrLimit (rooms or members), ErrThrottled with a RetryAfter, ErrUnavailable, ErrInvalidArgument. With the context's error
// the connection does not begin: if it has, it is dropped at once.
func (b *ReplayBuffer) Join(ctx context.Context, request *JoinRequest) (*Joined, error) {
	operation := replayOperation{
		kind: C.RECONNECT_REPLAY_JOIN, room: request.Room, user: request.User,
		position: string(request.Position), token: request.Token,
	}
	if request.Resume {
		operation.flags = C.RECONNECT_REPLAY_RESUME
	}
	var joined *Joined
	room, user := request.Room, request.User
	call := newReplayCall(1)
	if inOrder := request.InOrder; inOrder != nil {
		call.inOrder = func(result *replayResult) {
			joined = result.joined(room, user)
			inOrder(joined)
		}
	}
	call.abandonedJoin = &Member{Room: room, User: user}
	if err := b.perform(ctx, call, &operation); err != nil {
		return nil, err
	}
	err := call.results[0].err
	if err == nil && joined == nil {
		joined = call.results[0].joined(room, user)
	}
	call.free()
	return joined, err
}

// Recover gives what came after a position, or without one after what was acknowledged, for a connection that has joined:
// after a ReplayGapEvent, for example. While it is under way the connection is to get no live message; afterwards those
// with a higher Sequence. inOrder may be nil; it is as JoinRequest.InOrder.
//
// ErrUnknownRoom, ErrUnknownUser, ErrStale, ErrThrottled with a RetryAfter, ErrInvalidArgument.
func (b *ReplayBuffer) Recover(
	ctx context.Context, member Member, position Position, inOrder func(*Recovery),
) (*Recovery, error) {
	operation := member.operation(C.RECONNECT_REPLAY_RECOVER)
	operation.position = string(position)
	var recovery *Recovery
	call := newReplayCall(1)
	if inOrder != nil {
		call.inOrder = func(result *replayResult) {
			recovery = result.recovery()
			inOrder(recovery)
		}
	}
	if err := b.perform(ctx, call, &operation); err != nil {
		return nil, err
	}
	err := call.results[0].err
	if err == nil && recovery == nil {
		recovery = call.results[0].recovery()
	}
	call.free()
	return recovery, err
}

// Acknowledge says that the client has everything up to a position.
//
// ErrUnknownRoom, ErrUnknownUser, ErrStale. A position that is not one of the room's gives ErrInvalidArgument or has no
// effect.
func (b *ReplayBuffer) Acknowledge(ctx context.Context, member Member, position Position) error {
	operation := member.operation(C.RECONNECT_REPLAY_ACKNOWLEDGE)
	operation.position = string(position)
	return b.performPlain(ctx, &operation)
}

// Drop says that the connection ended. The user may come back within ReplayConfig.StateTTL.
//
// ErrUnknownRoom, ErrUnknownUser. ErrStale: a newer connection has taken over, and nothing has changed.
func (b *ReplayBuffer) Drop(ctx context.Context, member Member) error {
	operation := member.operation(C.RECONNECT_REPLAY_DROP)
	return b.performPlain(ctx, &operation)
}

// Leave says that the user does not come back. The last one to leave takes the room along. The errors are those of
// Drop.
func (b *ReplayBuffer) Leave(ctx context.Context, member Member) error {
	operation := member.operation(C.RECONNECT_REPLAY_LEAVE)
	return b.performPlain(ctx, &operation)
}

// State is what is known of a user.
//
// ErrUnknownRoom, ErrUnknownUser, ErrUnavailable.
func (b *ReplayBuffer) State(ctx context.Context, room, user string) (UserState, error) {
	operation := replayOperation{kind: C.RECONNECT_REPLAY_STATE, room: room, user: user}
	call := newReplayCall(1)
	if err := b.perform(ctx, call, &operation); err != nil {
		return UserState{}, err
	}
	state, err := call.results[0].state, call.results[0].err
	call.free()
	return state, err
}

// Quality judges what a client measured, and keeps the quality in the user's state.
//
// ErrUnknownRoom, ErrUnknownUser; ErrInvalidArgument for figures that cannot be.
func (b *ReplayBuffer) Quality(ctx context.Context, room, user string, measured Measurement) (QualityReport, error) {
	operation := replayOperation{
		kind: C.RECONNECT_REPLAY_QUALITY, room: room, user: user, latency: inMilliseconds(measured.Latency),
		loss: measured.Loss, jitter: inMilliseconds(measured.Jitter), bandwidth: measured.Bandwidth,
	}
	call := newReplayCall(1)
	if err := b.perform(ctx, call, &operation); err != nil {
		return QualityReport{}, err
	}
	report, err := QualityReport{Quality: call.results[0].quality}, call.results[0].err
	for _, line := range strings.Split(call.results[0].text, "\n") {
		if line != "" && err == nil {
			report.Recommendations = append(report.Recommendations, line)
		}
	}
	call.free()
	return report, err
}

// Subscribe asks for the live messages of a room as ReplayMessageEvents, from now on; counted, so that each Subscribe
// needs its Unsubscribe. When it returns, every message published from then on will come. Subscribe before the first
// Join, so that nothing is between what was replayed and what comes live. If the store does not answer, Subscribe returns
// after ReplayConfig.StoreTimeout all the same: then messages come as soon as it does, with a gap if there is one.
//
// ErrLimit, ErrInvalidArgument.
func (b *ReplayBuffer) Subscribe(ctx context.Context, room string) error {
	return b.performPlain(ctx, &replayOperation{kind: C.RECONNECT_REPLAY_SUBSCRIBE, room: room})
}

// Unsubscribe takes one Subscribe back. ErrWrongState: there is none.
func (b *ReplayBuffer) Unsubscribe(ctx context.Context, room string) error {
	return b.performPlain(ctx, &replayOperation{kind: C.RECONNECT_REPLAY_UNSUBSCRIBE, room: room})
}

// performPlain is for operations whose outcome is a status.
func (b *ReplayBuffer) performPlain(ctx context.Context, operation *replayOperation) error {
	call := newReplayCall(1)
	if err := b.perform(ctx, call, operation); err != nil {
		return err
	}
	err := call.results[0].err
	call.free()
	return err
}

// ReplayStatistics are counters since the buffer was made; those marked "now" are gauges.
type ReplayStatistics struct {
	Store            StoreState // now
	Rooms            uint64     // now; in memory
	Members          uint64     // now; in memory
	BytesHeld        uint64     // now; of messages in memory, overhead included
	Published        uint64
	Duplicates       uint64
	Joins            uint64
	Fresh            uint64
	Recovered        uint64
	RecoveredEmpty   uint64
	Lost             [7]uint64 // by LossReason; the first is unused
	MessagesReplayed uint64
	MessagesLive     uint64
	Gaps             uint64
	Throttled        uint64
	StoreOperations  uint64 // given to a store that is not memory
	StoreFailures    uint64 // failed, or not answered in time
	WithoutStore     uint64 // done without it
	EventsQueued     uint64 // now, in the library
}

// Statistics reads the buffer's counters.
func (b *ReplayBuffer) Statistics() (ReplayStatistics, error) {
	var native C.reconnect_replay_statistics_t
	native.struct_size = C.uint32_t(unsafe.Sizeof(native))
	if status := C.reconnect_replay_statistics(b.handle, &native); status != C.RECONNECT_OK {
		return ReplayStatistics{}, failure(status, "")
	}
	statistics := ReplayStatistics{
		Store:            StoreState(native.store),
		Rooms:            uint64(native.rooms),
		Members:          uint64(native.members),
		BytesHeld:        uint64(native.bytes_held),
		Published:        uint64(native.published),
		Duplicates:       uint64(native.duplicates),
		Joins:            uint64(native.joins),
		Fresh:            uint64(native.fresh),
		Recovered:        uint64(native.recovered),
		RecoveredEmpty:   uint64(native.recovered_empty),
		MessagesReplayed: uint64(native.messages_replayed),
		MessagesLive:     uint64(native.messages_live),
		Gaps:             uint64(native.gaps),
		Throttled:        uint64(native.throttled),
		StoreOperations:  uint64(native.store_operations),
		StoreFailures:    uint64(native.store_failures),
		WithoutStore:     uint64(native.without_store),
		EventsQueued:     uint64(native.events_queued),
	}
	for i := range statistics.Lost {
		statistics.Lost[i] = uint64(native.lost[i])
	}
	return statistics, nil
}

// Metrics are all metrics of the buffer in Prometheus' text format 0.0.4, to be served as MetricsContentType.
func (b *ReplayBuffer) Metrics() (string, error) {
	return textOf(8<<10, func(buffer *C.char, capacity C.size_t, length *C.size_t) C.reconnect_status_t {
		return C.reconnect_replay_metrics(b.handle, buffer, capacity, length)
	})
}

func (p *Publication) operation() (replayOperation, error) {
	lifetime, ok := wholeMilliseconds(p.Lifetime)
	if !ok {
		return replayOperation{}, &Error{Status: StatusInvalidArgument, Detail: "Lifetime is negative or too long"}
	}
	operation := replayOperation{
		kind: C.RECONNECT_REPLAY_PUBLISH, room: p.Room, user: p.User, to: p.To, data: p.Data, key: p.Key,
		negotiation: p.Negotiation, messageKind: uint32(p.Kind), lifetime: lifetime, format: C.RECONNECT_TEXT,
	}
	if p.Binary {
		operation.format = C.RECONNECT_BINARY
	}
	if p.Priority {
		operation.flags = C.RECONNECT_REPLAY_PRIORITY
	}
	return operation, nil
}

func (m *Member) operation(kind uint32) replayOperation {
	return replayOperation{kind: kind, room: m.Room, user: m.User, generation: m.Generation}
}
