// What the adapter needs of a stdio server, wherever it runs.

import type { LineSink } from './framing.ts'

/** A running server. Its output arrives at the sink that it was started with. */
export interface StdioServer {
  /**
   * Tells the life of a server that outlives its attachment (a container's start time); two attachments to one life
   * speak to one process. Undefined where the process ends with the attachment.
   */
  readonly life: string | undefined
  /** The process or the container, for people: `pid 4711`, `container mcp-files`. */
  readonly where: string
  /** Bytes written that the server has not taken yet. */
  readonly backlogBytes: number
  /** Writes one message, wire text without line breaks. Ignored after the end. */
  write(line: string): void
  /** Stops reading its output, so that it has to wait; `resume` goes on. */
  pause(): void
  resume(): void
  /** Ends it by the ladder stdin, TERM, KILL (mcp.md §2), or detaches. Resolves when nothing of it is left. */
  stop(): Promise<void>
}

export interface StdioSink extends LineSink {
  /** Called exactly once, after the last line, also after `stop`; the reason is in words for the client. */
  ended(reason: string): void
}

/** Starts or attaches. Rejects with a StartFailure whose message is for the client. */
export type StartStdio = (sink: StdioSink) => Promise<StdioServer>
