// When a Berth is ready: Envoy has everything, and every port answers.

import { type EventEmitter, once } from 'node:events'

import { accepts } from './slots/ports.ts'

/** Envoy acknowledges a listener before its workers accept, so the last word is a connection to each port. */
export async function whenReady(
  isReady: () => boolean,
  ports: () => readonly number[],
  host: string,
  events: EventEmitter<{ changed: [] }>,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    while (!isReady()) await once(events, 'changed', { signal })
    const accepted = await Promise.all(ports().map((port) => accepts(host, port, 1000)))
    signal.throwIfAborted()
    // Otherwise what is served has changed meanwhile.
    if (accepted.every(Boolean)) return
  }
}
