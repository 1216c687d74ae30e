package reconnect

// #include <reconnect.h>
import "C"

import (
	"math"
	"time"
	"unsafe"
)

// Durability says when the outcome of an operation on a SQLite store comes.
type Durability uint32

const (
	// Durable: after its transaction is on the disk.
	Durable Durability = C.RECONNECT_REPLAY_DURABLE
	// Relaxed: what it did survives the process, not the loss of power.
	Relaxed Durability = C.RECONNECT_REPLAY_RELAXED
)

// ReplayConfig says how a replay buffer works. Zero in a member means its default. Durations count in
// milliseconds: a fraction of one is rounded up.
type ReplayConfig struct {
	// Window is how many messages are kept per room; default 50, at most 65536.
	Window uint32
	// MaxWindow: rooms whose clients stay away for longer than the window lasts get a larger one, up to this; 0:
	// windows do not adapt.
	MaxWindow uint32
	// MessageTTL is how long a message is kept; default 5 min.
	MessageTTL time.Duration
	// StateTTL is how long rooms and users are remembered after their last sign of life; default ten times
	// MessageTTL, never less than MessageTTL.
	StateTTL time.Duration
	// MaxMessageSize is in bytes; default 65536, at most 16777216.
	MaxMessageSize uint32
	// MaxRoomBytes is for the messages of one room; default 1048576.
	MaxRoomBytes uint64
	// MaxBytes is for the messages of all rooms, overhead included; default 268435456. The rooms that were least
	// recently used lose theirs first.
	MaxBytes uint64
	// MaxRooms defaults to 1048576.
	MaxRooms uint32
	// MaxMembers is users of all rooms; default 1048576.
	MaxMembers uint32
	// MaxMembersPerRoom defaults to 10000.
	MaxMembersPerRoom uint32
	// MaxKept is how many offers, answers and priority messages are kept beside the window of a room; default 16.
	MaxKept uint32
	// MaxBatch is how many messages one outcome may carry; more is LostLimit; default 1000.
	MaxBatch uint32
	// MaxBatchBytes is likewise in bytes; default 4194304.
	MaxBatchBytes uint32
	// RecoveriesPerSecond are admitted over all rooms, the others get ErrThrottled; 0: no limit.
	RecoveriesPerSecond uint32
	// RecoveryBurst is how many are admitted at once; default 1000.
	RecoveryBurst uint32
	// TrustUsers: the program has authenticated the user, and no token is needed to resume.
	TrustUsers bool
	// ReplayKeptOnLoss: Lost replays the latest offers, answers and priority messages.
	ReplayKeptOnLoss bool
	// MaxKeys is how many idempotency keys are remembered per room; default 64.
	MaxKeys uint32
	// KeyTTL is how long they are; default 5 min.
	KeyTTL time.Duration
	// Store says where rooms are. Empty: in memory. "sqlite:PATH", "redis://...", "rediss://..." and
	// "redis+unix:PATH" as in Config.SessionStore. A Redis that is away is not an error: rooms are numbered here
	// until it is there, and a ReplayStoreEvent tells.
	Store string
	// Prefix is of keys in Redis; default "webrtc:reconnect:".
	Prefix string
	// StoreTimeout: an operation is done without the store when that has answered nothing for so long, or not this one for a
	// hundred times as long (but for 5 s, if this is less); default 50 ms, and 5 s with SQLite.
	StoreTimeout time.Duration
	// Durability is Durable or Relaxed, for SQLite.
	Durability Durability
	// Breaker is when a store is left alone.
	Breaker Breaker
	// Secret signs positions: 16 to 256 bytes, the same on servers that share a store. Empty: a random one, kept in
	// the store.
	Secret []byte
	// Compression: messages above 200 bytes are kept compressed where that saves a tenth (Zstandard, RFC 8878).
	Compression bool
	// MaxPending is how many operations may be under way in the library; default 100000. Operations beyond it wait
	// in their methods.
	MaxPending uint32
	// Quality is what counts as a good and as a poor connection.
	Quality QualityLimits

	// EventCapacity is the capacity of the channel of events; default 1024. When it is full, live messages are
	// left out, and a ReplayGapEvent says of which room.
	EventCapacity int
}

// Breaker is when a store that fails is left alone, and for how long. Zero in a member means its default.
type Breaker struct {
	// Window: failures are counted over this time; default 10 s.
	Window time.Duration
	// Operations are made in the window before it is judged; default 20.
	Operations uint32
	// Percent of them have failed: the store is left alone; default 50.
	Percent uint32
	// Open is how long, before one operation tries it again; default 1 s.
	Open time.Duration
}

// QualityLimits are two limits for each figure: beyond the first the connection is fair, beyond the second poor. Zero
// in a member means its default.
type QualityLimits struct {
	// Latency: default 150 ms and 400 ms.
	Latency [2]time.Duration
	// Loss in percent: default 1 and 5.
	Loss [2]float64
	// Jitter: default 30 ms and 75 ms.
	Jitter [2]time.Duration
	// Bandwidth in kbit/s, below which it is fair or poor: default 1000 and 300.
	Bandwidth [2]float64
	// Hysteresis: a connection is better only if it is better than the limit by this share; default 0.1; negative:
	// 0.
	Hysteresis float64
}

// fill writes the configuration as the library takes it. Its pointers live as long as the arena.
func (c *ReplayConfig) fill(out *C.reconnect_replay_config_t, memory *arena) error {
	if err := refuseZeroBytes("Store", c.Store); err != nil {
		return err
	}
	if err := refuseZeroBytes("Prefix", c.Prefix); err != nil {
		return err
	}
	for _, each := range []struct {
		name  string
		value time.Duration
		out   *C.uint32_t
	}{
		{"MessageTTL", c.MessageTTL, &out.message_ttl_ms},
		{"StateTTL", c.StateTTL, &out.state_ttl_ms},
		{"KeyTTL", c.KeyTTL, &out.key_ttl_ms},
		{"StoreTimeout", c.StoreTimeout, &out.store_timeout_ms},
		{"Breaker.Window", c.Breaker.Window, &out.breaker_window_ms},
		{"Breaker.Open", c.Breaker.Open, &out.breaker_open_ms},
	} {
		count, err := milliseconds(each.name, each.value)
		if err != nil {
			return err
		}
		*each.out = count
	}
	out.struct_size = C.uint32_t(unsafe.Sizeof(*out))
	out.window = C.uint32_t(c.Window)
	out.max_window = C.uint32_t(c.MaxWindow)
	out.max_message_size = C.uint32_t(c.MaxMessageSize)
	out.max_room_bytes = C.uint64_t(c.MaxRoomBytes)
	out.max_bytes = C.uint64_t(c.MaxBytes)
	out.max_rooms = C.uint32_t(c.MaxRooms)
	out.max_members = C.uint32_t(c.MaxMembers)
	out.max_members_per_room = C.uint32_t(c.MaxMembersPerRoom)
	out.max_kept = C.uint32_t(c.MaxKept)
	out.max_batch = C.uint32_t(c.MaxBatch)
	out.max_batch_bytes = C.uint32_t(c.MaxBatchBytes)
	out.recoveries_per_second = C.uint32_t(c.RecoveriesPerSecond)
	out.recovery_burst = C.uint32_t(c.RecoveryBurst)
	out.trust_users = flag(c.TrustUsers)
	out.replay_kept_on_loss = flag(c.ReplayKeptOnLoss)
	out.max_keys = C.uint32_t(c.MaxKeys)
	out.store = memory.text(c.Store)
	out.prefix = memory.text(c.Prefix)
	out.durability = C.uint32_t(c.Durability)
	out.breaker_operations = C.uint32_t(c.Breaker.Operations)
	out.breaker_percent = C.uint32_t(c.Breaker.Percent)
	out.secret = memory.bytes(c.Secret)
	out.secret_size = C.size_t(len(c.Secret))
	out.compression = flag(c.Compression)
	out.max_pending = C.uint32_t(c.MaxPending)
	for i := range out.latency_ms {
		out.latency_ms[i] = C.double(inMilliseconds(c.Quality.Latency[i]))
		out.loss_percent[i] = C.double(c.Quality.Loss[i])
		out.jitter_ms[i] = C.double(inMilliseconds(c.Quality.Jitter[i]))
		out.bandwidth_kbps[i] = C.double(c.Quality.Bandwidth[i])
	}
	out.hysteresis = C.double(c.Quality.Hysteresis)
	return nil
}

// inMilliseconds keeps fractions.
func inMilliseconds(duration time.Duration) float64 {
	return float64(duration) / float64(time.Millisecond)
}

// wholeMilliseconds is the same as milliseconds, where there is no error to return.
func wholeMilliseconds(duration time.Duration) (uint32, bool) {
	if duration < 0 || duration > math.MaxUint32*time.Millisecond {
		return 0, false
	}
	return uint32((duration + time.Millisecond - 1) / time.Millisecond), true
}
