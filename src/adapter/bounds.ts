// What one adapter may hold: the shared ceilings of config/limits.ts and those that only the adapter knows.

import { ADAPTER_BOUNDS } from '../config/limits.ts'

/** Times in milliseconds, sizes in bytes. Tests pass smaller ones. */
export const DEFAULT_BOUNDS = {
  ...ADAPTER_BOUNDS,
  /** How long an answer's headers are held for a plain JSON answer before the POST becomes an event stream. */
  holdMs: 1000,
  /** The `retry` that clients are told before they resume a stream. */
  retryMs: 1000,
  /** Ended streams of one session that can still be resumed, and for how long. */
  endedStreams: 100,
  endedStreamMs: 5 * 60 * 1000,
  /** Bytes of events kept over all sessions, so that many sessions together stay bounded too. */
  replayTotalBytes: 64 * 1024 * 1024,
  /** Bytes of request bodies that are being read, over all requests; at least two of the largest always fit. */
  bodyBytes: 64 * 1024 * 1024,
  /** Bytes of requests that wait for their turn, over all processes of a slot (their number: limits.queue). */
  queueBytes: 64 * 1024 * 1024,
  /** A client that has waited this long for its turn, or a tenth of limits.timeout, counts as of the next higher tier. */
  ageMs: 5000,
  /** Messages of the server that wait until a session opens a stream. */
  waitingMessages: 100,
  waitingBytes: 1024 * 1024,
  /** A reader that takes nothing for this long while something waits for it is cut; streams can be resumed. */
  slowReaderMs: 30_000,
  /** How long an HTTP+SSE stream may be open before its client initializes. */
  sseBeginMs: 60_000,
  /** A request gets this long to arrive, its body included. */
  arrivalMs: 5 * 60 * 1000,
  /**
   * Bytes waiting for one slow reader of a shared process, which is not slowed down; then its stream is cut. Not less
   * than a session's kept events, so that their replay does not cut the stream that it is for.
   */
  slowStreamBytes: ADAPTER_BOUNDS.replayBytes,
  /** Requests of one server that no client has answered yet. */
  asks: 1000,
  /** Resources that the sessions of one shared process are subscribed to. */
  subscriptions: 10_000,
  /** Processes that sessions share, one per version and declared capabilities. */
  sharedProcesses: 16,
  /**
   * Sessions with a process each, which most clients leave without a word (mcp.md §9): how many there may be, and how
   * many of them stay that nobody has used for so long.
   */
  processSessions: 200,
  restingSessions: 64,
  restingMs: 60_000,
  /** Between looks for idle sessions and expired streams. */
  sweepMs: 60_000,
  /** Between starts of a process that keeps failing: doubling from the first to the second. */
  restartMinMs: 1000,
  restartMaxMs: 30_000,
  /** The longest between starts while nothing but the engine is missing. */
  engineRetryMs: 2000,
  /** Spare processes that may fail in a row before none is started any more. */
  spareFailures: 4,
  /** `subscriptions/listen` streams of the modern era, over all clients and of one. */
  listens: 1000,
  listensPerClient: 100,
  /** Processes of the legacy era for clients of the modern one, and how long one is kept that nobody uses. */
  bridgedProcesses: 16,
  bridgedIdleMs: 10 * 60 * 1000,
  /** Resources that one session of the legacy era is subscribed to at a server of the modern one. */
  sessionSubscriptions: 1000,
  /** Calls that wait for their client's input, and how long; what one of them asks at most. */
  heldCalls: 100,
  heldMs: 5 * 60 * 1000,
  asksPerCall: 100,
  /** What a server asks within this time becomes one question to the client. */
  gatherMs: 10,
  /** How often a server may ask for more input before one request is answered, and how long a client may take each time. */
  inputRounds: 8,
  inputMs: 10 * 60 * 1000,
  /** Before a request is sent again that the server answered with nothing but a state. */
  stateRetryMs: 250,
  /** How long after a request of the modern era was cancelled its server may still log for it. */
  lateLogsMs: 5000,
  /** How long a server may think about `server/discover` before it counts as one of the legacy era. */
  probeMs: 5000,
  /** Pages of a server's list of tools that are read for the headers that repeat arguments. */
  toolPages: 100,
  /** A list of tools whose changes the server does not tell is read again after this. */
  toolListMs: 60_000,
  /** A server that says nothing for this long, and owes no answer, is pinged. */
  pingAfterMs: 30_000,
  /** It gets this long to answer a ping; also between looks at all servers. */
  pingAnswerMs: 10_000,
  /** Pings in a row without an answer that it takes to give a server up. */
  pings: 2,
  /** A call of the Engine API. */
  engineCallMs: 10_000,
  /** One that makes or starts a container: an engine that has to start many at once takes its time. */
  engineWorkMs: 60_000,
  /** Requests get this long to end after SIGTERM, where nobody says a deadline. */
  drainMs: 5000,
  /** Changes of the status are told at most this often. */
  watchMs: 50,
  /** A watcher hears at least an empty line this often. */
  heartbeatMs: 3000,
} as const

export type Bounds = { readonly [Name in keyof typeof DEFAULT_BOUNDS]: number }

/** How long to wait with the next start after as many failures in a row and one more: the first costs nothing. */
export function restartWait(earlierFailures: number, { restartMinMs, restartMaxMs }: Bounds): number {
  return earlierFailures === 0 ? 0 : Math.min(restartMaxMs, restartMinMs * 2 ** (earlierFailures - 1))
}
