// The versions of the legacy era and what depends on them (mcp.md §1.1).

/** Versions over Streamable HTTP, oldest first. */
export const VERSIONS = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'] as const
export const LATEST_VERSION = '2025-11-25'

/** Versions are dates, so their order is that of their text. */
export function isSupported(version: string): boolean {
  return (VERSIONS as readonly string[]).includes(version)
}

/** Batches came with 2025-03-26 and went with 2025-06-18; 2024-11-05 over this transport is served alike. */
export function allowsBatches(version: string): boolean {
  return version <= '2025-03-26'
}

/** Messages in one batch, of a client or a server. */
export const BATCH_MESSAGES = 1000

/** Older clients fail on an event without data (mcp.md §1.2). */
export function allowsPriming(version: string): boolean {
  return version >= '2025-11-25'
}

/** What a request of the modern era carries in `params._meta` (mcp.md §0.1). */
export const MODERN_VERSION_KEY = 'io.modelcontextprotocol/protocolVersion'
