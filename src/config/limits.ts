// Bounds of what a process of Berth keeps: defaults of the configuration and the fixed ceilings of an adapter.
// The one file of config/ that the adapter may import (design §10), so it imports nothing at run time.

import type { Limits } from '../model/service.ts'

/** What a service gets that says nothing about `limits` (contract, "Configuration"). */
export const DEFAULT_LIMITS: Limits = {
  concurrency: 16,
  queue: 100,
  timeoutMs: 60_000,
  messageBytes: 16_000_000,
}

/** Ceilings inside one adapter; nothing in it grows past them. */
export const ADAPTER_BOUNDS = {
  /** Sessions at once; the one idle for longest goes when a further one comes. */
  sessions: 1000,
  /** A session that nobody uses ends after this (design §7). */
  sessionIdleMs: 2 * 60 * 60 * 1000,
  /** Comments on open streams, well below common proxies' idle time-outs. */
  keepAliveMs: 15_000,
  /** Events kept per stream for `Last-Event-ID`. */
  replayEvents: 1000,
  /** Bytes of events kept per session over all its streams. */
  replayBytes: 4 * 1024 * 1024,
  /** Bytes waiting for one slow reader before the process is no longer read. */
  streamBufferBytes: 1024 * 1024,
  /** GET streams of one session; Gemini opens several (mcp.md §9). */
  streamsPerSession: 8,
  /** Between the rungs of the shutdown ladder: stdin closed, TERM, KILL. */
  shutdownRungMs: 2000,
} as const
