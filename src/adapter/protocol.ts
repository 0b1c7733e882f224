// The versions of both eras and what depends on them (mcp.md §1.1, §1.4).

/** Versions of the legacy era over Streamable HTTP, oldest first. */
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

/** The one version of the modern era that is served, and what its messages carry in `_meta` (mcp.md §1.4). */
export const MODERN_VERSION = '2026-07-28'
const PREFIX = 'io.modelcontextprotocol/'
export const META = {
  version: `${PREFIX}protocolVersion`,
  clientInfo: `${PREFIX}clientInfo`,
  capabilities: `${PREFIX}clientCapabilities`,
  logLevel: `${PREFIX}logLevel`,
  subscription: `${PREFIX}subscriptionId`,
  serverInfo: `${PREFIX}serverInfo`,
} as const
/** All keys that begin so belong to the protocol. */
export const META_PREFIX = PREFIX

/** Versions without a handshake, also those that are not served. */
export function isModernVersion(version: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(version) && version >= MODERN_VERSION
}

/** Methods of the legacy era that the modern one has no more: nobody gets them, whatever the server would say. */
export const REMOVED_METHODS: ReadonlySet<string> = new Set([
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
])

/** Levels of logs, the least first. */
export const LOG_LEVELS = ['debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency'] as const
