// What Envoy has counted of requests, as Prometheus reads it. Envoy's numbers are passed on as they are: they are exact,
// survive the control plane, and begin at 0 with each Envoy, which Prometheus takes for the restart of a counter.

import { setImmediate } from 'node:timers/promises'

/** Names that Envoy's Prometheus format makes of those of compile/statistics.ts. */
const REQUESTS = 'envoy_berth_requests'
const DURATION = 'envoy_berth_duration_us'

const COUNT =
  /^envoy_berth_requests\{(service="([^"]*)",status="(\d+)",method="[^"]*",client="([^"]*)",tool="[^"]*"),flags="([^"]*)"\} (\d+)$/
/** Characters that are looked at before something else gets a turn: a large Envoy says 15 MB. */
const PART = 64 * 1024

export interface EnvoyStatistics {
  /** Exposition lines, with what they mean. */
  readonly text: string
  /** Different counters, of which Envoy makes no more than it is allowed to. */
  readonly series: number
}

/** @param said what Envoy answers to `STATISTICS_PATH` */
export async function requestMetrics(said: string): Promise<EnvoyStatistics> {
  const requests = new Map<string, number>()
  const rejections = new Map<string, number>()
  const durations: string[] = []
  let series = 0
  for (let at = 0; at < said.length;) {
    const cut = said.indexOf('\n', at + PART)
    const end = cut === -1 ? said.length : cut
    const own: string[] = []
    for (const line of said.slice(at, end).split('\n')) {
      if (line.startsWith(DURATION)) own.push(inSeconds(line))
      else if (line.startsWith(REQUESTS)) {
        const [, labels, service, status, client, flags, value] = COUNT.exec(line) ?? []
        if (labels === undefined) continue
        series += 1
        add(requests, labels, Number(value))
        const reason = reasonOf(Number(status), flags!)
        if (reason) add(rejections, `service="${service}",client="${client}",reason="${reason}"`, Number(value))
      }
    }
    if (own.length > 0) durations.push(own.join('\n'))
    at = end + 1
    await setImmediate()
  }
  const text = [
    '# HELP mcp_requests_total Requests that have ended, by HTTP status; 0: the client left before the answer. Health checks are not counted.',
    '# TYPE mcp_requests_total counter',
    ...lines('mcp_requests_total', requests),
    '# HELP mcp_rejections_total Requests that were refused before or instead of being run.',
    '# TYPE mcp_rejections_total counter',
    ...lines('mcp_rejections_total', rejections),
    '# HELP mcp_request_duration_seconds From the first byte of a request to the last of its answer; streams that a client opens with GET are left out.',
    '# TYPE mcp_request_duration_seconds histogram',
    ...durations,
  ]
  return { text: `${text.join('\n')}\n`, series }
}

function add(sums: Map<string, number>, key: string, value: number): void {
  sums.set(key, (sums.get(key) ?? 0) + value)
}

function lines(name: string, sums: ReadonlyMap<string, number>): string[] {
  return [...sums].map(([labels, value]) => `${name}{${labels}} ${value}`)
}

/** Envoy counts in microseconds. */
function inSeconds(line: string): string {
  const named = `mcp_request_duration_seconds${line.slice(DURATION.length)}`
  if (named.startsWith('_sum', 'mcp_request_duration_seconds'.length)) {
    const space = named.lastIndexOf(' ')
    return `${named.slice(0, space)} ${Number(named.slice(space + 1)) / 1e6}`
  }
  return named.replace(/le="([\d.e+]+)"/, (_, bound: string) => `le="${Number(bound) / 1e6}"`)
}

/** By Envoy's flags, and the adapter's word behind them, where the status alone does not say it. Undefined: it was not refused. */
function reasonOf(status: number, flags: string): string | undefined {
  if (status === 429)
    return /RL|rate_limit/.test(flags) ? 'rate_limit' : /UO|concurrency/.test(flags) ? 'concurrency' : 'queue'
  if (status === 503) return /UH|NC/.test(flags) ? 'not_started' : 'unavailable'
  return REASONS[status]
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'malformed',
  401: 'unauthenticated',
  403: 'forbidden',
  404: 'not_found',
  405: 'malformed',
  408: 'too_slow',
  413: 'too_large',
  431: 'too_large',
}
