package instance

import (
	"time"
)

// How long everything may take, and how often it is done, each with its reason: first
// questions to Consul and Envoy, then what is done while an instance runs, then the
// stop.

// CallTimeout bounds a question to the servers.
const CallTimeout = 2 * time.Second

// Writes may come late (registry/writes.go).
const (
	// HoldTime is how long a write may be on its way. Servers without a leader hold
	// it for rpc_hold_timeout, 7 s by default (Consul 1.22, agent/consul/config.go).
	HoldTime = 8 * time.Second
	// LongestHold is the same for servers that are slower than they should be.
	LongestHold = 30 * time.Second
)

// ConnectTimeout is for a connection to one server. Where it does not answer,
// another is asked.
const ConnectTimeout = time.Second

// A server that is gone without a word is noticed by pings on its streams.
// Consul ends a connection with more than one in 15 s (1.22,
// agent/grpc-external/server.go).
const (
	PingAfter   = 20 * time.Second // of silence
	PingTimeout = 5 * time.Second
	// APIPingAfter is the same for the HTTP API, which allows more of them: twice the
	// silence between two renewals of a session.
	APIPingAfter = 2 * RenewEvery
)

// IdleConnection is how long a connection to the HTTP API may have nothing to do: one
// that renews a session has something every 5 s, and those that only a busy moment
// needed are not held against the address that they come from.
const IdleConnection = 3 * RenewEvery

// What fails is tried again after a random part of a bound that doubles each time
// (wait.Backoff): where servers were away, thousands come back to them at once.
const (
	// AgainFirst is the first of these bounds.
	AgainFirst = time.Second
	// StreamAgain is the last of them for Envoys' streams: an Envoy without one does
	// not hear that others stop. Together with Envoy's own second these are three.
	StreamAgain = 2 * time.Second
	// RenewAgain is that for sessions, which would end else.
	RenewAgain = RenewEvery
	// ListAgain is that for lists, and for all that nothing waits for.
	ListAgain = 15 * time.Second
)

// LeaderlessFor is after how long a server that was left because it has no leader is
// asked again, and half as long again at most. An election takes two or three
// seconds, in which no server has one.
const LeaderlessFor = 5 * time.Second

// LookupTimeout is how long the lookup of a name may take: resolvers wait 5 s for a
// name server that does not answer before they ask the next. LookupPatience is for one
// whose addresses were found before. LookupGrace is for the other names when one has
// been found.
const (
	LookupTimeout  = 15 * time.Second
	LookupPatience = 500 * time.Millisecond
	LookupGrace    = 100 * time.Millisecond
)

// RefusedPatience is how long ACLs may refuse something at start: a token that a
// broker has just made reaches every server a little later.
const RefusedPatience = 5 * time.Second

// RejectedPatience is how long a configuration may stay rejected before the
// start gives up: it would not get better by waiting.
const RejectedPatience = 3 * time.Second

// CountersAfter is how long Envoy is asked only whether it is ready, which it is
// when it has been told everything: to find counters it looks at all it has.
const CountersAfter = time.Second

const (
	// GossipPatience is how long an agent may take to be let in by servers that
	// answer on the gossip port. It asks one address after the other, and waits
	// 10 s for one that is silent.
	GossipPatience = 15 * time.Second
	// SameVerdict is how often the servers have to say the same, one look
	// after the other: one of them may be starting.
	SameVerdict = 3
)

// AsideBudget is for what an instance can be without: servers that do not answer
// do not keep the app waiting.
const AsideBudget = 5 * time.Second

// Forgetting is how long callers are given to drop an address, with all that
// they hold against it: they hear of it after 200 ms, or a little later, and
// would not notice what is back by then.
const Forgetting = time.Second

// StatusBudget bounds the collection of a status, SurveyBudget that of what can be
// asked for: where servers are silent, time has to be left for finding that out.
const (
	StatusBudget = 5 * time.Second
	SurveyBudget = 2 * time.Second
)

const (
	// Beat is how often a running Envoy is looked at, LookTimeout how long it
	// may take to answer, asked twice (wait.Look): together the time until a hung one
	// is out of rotation.
	Beat        = 500 * time.Millisecond
	LookTimeout = time.Second
	// DeafLooks is at how many looks in a row an app does not listen that has closed
	// its port: a reload may do so for a moment.
	DeafLooks = 2
	// Refresh is how often an unchanged state is repeated to the agent; the TTL
	// in service.json is several times as long.
	Refresh = 3 * time.Second
	// WaitingNote is how often the log says what an app is still waited for.
	WaitingNote = 10 * time.Second
	// WrapperGrace is how long after the mesh is ready an app may show up
	// before the log says that it was not held.
	WrapperGrace = 2 * time.Second
)

// An instance without sidecars runs the mesh itself.
const (
	// AloneAfter is how long an app waits until one of its sidecars is there: on the
	// platform all are started at the same moment.
	AloneAfter = 5 * time.Second
	// MaybeLater is how much longer a command waits of which it is not known whether
	// it is the app's.
	MaybeLater = 2 * time.Second
)

// TasksLook is at how many other tasks of its app a task looks when it ends.
const TasksLook = 3

// WatchInterval is how often a running instance looks whether its bound service has
// new credentials, which are in a file.
const WatchInterval = 3 * time.Second

// How often the servers are asked whether they know the tokens, which is the most that
// idle instances would ask for.
const (
	// TokenLook is the least time between two looks, and half of the longest.
	TokenLook = 30 * time.Second
	// RefusedLook is the same after a look has found a token that is not known.
	RefusedLook = 10 * time.Second
)

// A check that fails and passes in turn counts as passing again at once that often in
// FlapWindow, and then when it has passed for FlapPause: each turn is written by the
// servers, and sent to every caller.
const (
	FlapsAtOnce = 10
	FlapWindow  = time.Minute
	FlapPause   = 15 * time.Second
)

// An instance without an agent whose session was not renewed that often in a row says
// that it is cut off.
const CutOffAfter = 2

// HungAfter is how long the agent may take to answer, asked twice. With the beat it
// makes the time until a hung one is ended.
const HungAfter = 1400 * time.Millisecond

// AgentLeaderless is for how long an agent may know no leader before it is looked
// whether its servers have moved: an election takes some seconds.
const AgentLeaderless = 10 * time.Second

// AgentLeaderlessMost is the same where starting the agent anew has not helped.
const AgentLeaderlessMost = 5 * time.Minute

// EntriesLook is how often one instance for all looks whether their configuration
// entries are there: within two minutes they are again.
const EntriesLook = 90 * time.Second

// CatalogLook is how often an instance looks whether the catalog still has it.
const CatalogLook = 5 * time.Second

// An agent that has run for SteadyAfter is worth starting again, and one that
// was killed. One that ends by itself before it was ever steady would most likely
// do so again. Of those started again, that many may end quickly in a row.
const (
	SteadyAfter = 5 * time.Second
	QuickEnds   = 3
)

// No gossip tells when an instance without an agent has died. So each holds a
// key of Consul's key/value store by a session that ends when it is no longer
// renewed, and another instance of its service waits for keys to go
// (registry/janitor.go). Renewing writes nothing. Servers that were away let every
// session live on, so nobody is taken for dead because of them.
const (
	// SessionTTL is the least that Consul takes. Consul ends a session at most twice
	// that after the session was renewed last.
	SessionTTL = "10s"
	// RenewEvery is how often a session is renewed: late enough that a dead
	// instance's ends well before its 20 s, and three times before it ends.
	RenewEvery = 5 * time.Second
	// Overdue is when a renewal is so late that the servers must have been away, or
	// out of reach. Others then have Brake to be back.
	Overdue = 2 * RenewEvery
	// CompareEvery is how often an instance looks how the catalog has it, or up to a
	// quarter later: so long may last what somebody else has changed there.
	CompareEvery = 2 * time.Minute
)

// Of the instances of a service without agents one, the janitor, takes the dead out of
// the catalog: those whose sign of life has gone (registry/janitor.go, burial.go).
const (
	// WatchWait is how long a request for news of the janitor, or by it of the others,
	// stays open, and how often the janitor looks at everything. It bounds how long a
	// connection that was cut without a word is waited for.
	WatchWait = time.Minute
	// ElectionTime is within which those that want to be the janitor say so.
	ElectionTime = 2 * time.Second
	// JanitorPatience is after how long without a look the janitor lets another be it.
	JanitorPatience = 30 * time.Second
	// Together is within which keys that go are looked at together. Sessions that were
	// lost at one moment end within RenewEvery, so where there could be too many at
	// once it is when none has gone for Quiet, at QuietMost at the latest.
	Together  = 250 * time.Millisecond
	Quiet     = 1500 * time.Millisecond
	QuietMost = RenewEvery + time.Second
	// Brake is how long nobody is buried where more than half of a service, and
	// BrakeLeast at least, are overdue at once.
	Brake      = 30 * time.Second
	BrakeLeast = 4
	// BurialsAtOnce are under way side by side.
	BurialsAtOnce = 8
	// BareFor is how long a node without the service has to have no session: one that
	// is just being registered gets a session after two writes, each of which slow
	// servers take their time for, and after answers of theirs that were lost.
	BareFor = 3*HoldTime + 6*time.Second
)

// The platform sends SIGTERM to all processes of an instance at once and kills
// them after 10 s, where nobody has said otherwise (stopbudgets.go). Out of that, in
// order (docs/architecture.md, "Stop"):
const (
	// Grace is what the times from StopBudget on are of.
	Grace = 10 * time.Second
	// DeregisterBudget is for telling the agent, which answers in milliseconds, and
	// ServersBudget for telling the servers, of which one may be silent. Where that has
	// not come true it is tried until the end, while the rest of the stop goes on.
	DeregisterBudget = 300 * time.Millisecond
	ServersBudget    = 900 * time.Millisecond
	// DrainBudget is for callers to hear of it, and for what they have in flight: an
	// app may need the other half for itself.
	DrainBudget = 4 * time.Second
	// HearBudget bounds the question how many servers tell callers.
	HearBudget = 300 * time.Millisecond
	// StopBudget is when the app must have ended, counted from SIGTERM: then
	// `mesh app` kills it.
	StopBudget = 8 * time.Second
	// KilledBudget is for the end of a killed app to be seen.
	KilledBudget = 200 * time.Millisecond
	// QuietFor is how long no request may have come for callers to have heard that the
	// instance is out of rotation, which DrainDelay is mostly enough for: on a machine
	// that is busy with other things it takes longer. DrainLook is how often that is
	// looked at meanwhile.
	QuietFor  = 200 * time.Millisecond
	DrainLook = 50 * time.Millisecond
	// FlushBudget is for what the app said last to reach its callers, within the
	// above.
	FlushBudget = 3 * time.Second
	// EnvoyBudget is for Envoy's own end.
	EnvoyBudget = 800 * time.Millisecond
)

// How long it takes until all callers have heard that an instance is gone.
const (
	// HearAfter is how long a server gathers changes before it tells an Envoy
	// (Consul 1.22, agent/proxycfg: coalesceTimeout).
	HearAfter = 200 * time.Millisecond
	// TellsPerSecond is how many Envoys a server tells, of all services together
	// (Consul 1.22: xds.update_max_per_second).
	TellsPerSecond = 250
)

// The last words to the servers.
const (
	LeaveBudget = 500 * time.Millisecond
	// TaskLeaveBudget is LeaveBudget of a task, which has nobody to wait for before.
	TaskLeaveBudget = 1200 * time.Millisecond
	LogoutBudget    = 300 * time.Millisecond
	OrphanBudget    = 2 * time.Second
)

// FirstSync is how long after its first server an agent may still
// synchronise its node for the first times: each of the servers that it
// meets makes it do so after a random part of 3 s, two of them in a row
// (Consul 1.22, agent/ae, in a cluster of up to 128 nodes).
const FirstSync = 6200 * time.Millisecond

// SweepPause is short, because what comes after the last sweep stays.
const SweepPause = 25 * time.Millisecond
