// How much each client of the slot gets: requests in a minute and at once, for all tools and for some (design §5). It is
// the same for all processes of the slot and for both eras.
//
// Envoy holds the same bucket, for each of its listeners; this one is for what comes through several of them. It counts by
// when a request came to Envoy: what Envoy has let through one listener is never refused here, however long it was held.

import { crowdWords, rateWords, toolMatches, type ClientLimits, type Policies } from '../model/policy.ts'
import { Bucket } from './bucket.ts'
import { CODE, type Refusal } from './error.ts'
import type { HttpRequest } from './http1.ts'
import { uniqueMembers } from './json.ts'
import { stringAt, type Message, type RequestMessage } from './message.ts'
import { isMethod, misspelled } from './policy.ts'

/** Requests that run, of those that count together. */
export interface Running {
  count: number
  most: number
  /** All requests of a client, and not only those for some tools. */
  readonly ofAll: boolean
  /** Why one more has to wait, and what to do about it. */
  words: string
}

/** Where a request counts while it runs. Of a client without limits: nowhere. */
export type Claim = readonly Running[]

/** Of the adapter's own requests. */
export const NO_CLAIM: Claim = []

interface ToolRule {
  readonly glob: string
  readonly bucket: Bucket | undefined
  readonly running: Running | undefined
}

interface Rule {
  readonly limits: ClientLimits
  readonly bucket: Bucket | undefined
  readonly running: Running | undefined
  readonly tools: readonly ToolRule[]
}

const NAME: ReadonlySet<string> = new Set(['name'])
const CALL = 'tools/call'
/** When the request came to Envoy, in milliseconds since 1970. */
const AT = 'x-berth-at'

export class ClientLimitTable {
  readonly #service: string
  #rules: ReadonlyMap<string, Rule> = new Map()

  constructor(service: string, policies: Policies | undefined) {
    this.#service = service
    this.set(policies)
  }

  /** From now on. What a client has used stays used, and what runs goes on. */
  set(policies: Policies | undefined): void {
    const before = this.#rules
    this.#rules = new Map(
      Object.entries(policies ?? {}).flatMap(([client, { limits }]) =>
        limits ? [[client, ruleOf(this.#service, client, limits, before.get(client))]] : [],
      ),
    )
  }

  /**
   * Counts what a POST holds: each request of it, and itself where there is none.
   * @returns why none of it may be carried out, if so
   */
  charge(client: string, req: HttpRequest, messages: readonly Message[]): Refusal | undefined {
    const rule = this.#rules.get(client)
    if (!rule) return undefined
    const requests = messages.filter(({ kind }) => kind === 'request').length
    const now = Date.now()
    const at = Number(req.headers[AT])
    // Until Envoy hears of a limit that is new it is the client's own word, which must not break the bucket for good.
    const came = Number.isFinite(at) && at > 0 ? at : now
    const wait = rule.bucket?.take(Math.max(1, requests), came, now) ?? 0
    // An answer or a notification that Envoy has let through would be missed by the server.
    if (wait > 0 && requests > 0) return this.#tooOften(client, rule, rule.bucket!, wait)
    for (const { glob, bucket } of rule.tools.length === 0 ? [] : toolRules(rule, messages)) {
      const wait = bucket?.take(1, performance.now()) ?? 0
      if (wait > 0) return this.#tooOften(client, rule, bucket!, wait, glob)
    }
    return undefined
  }

  /** What its tier is called; undefined: nobody has said. */
  tierOf(client: string): string | undefined {
    return this.#rules.get(client)?.limits.tier
  }

  /** Where a request counts while it runs. */
  claim(client: string, message: RequestMessage): Claim {
    const rule = this.#rules.get(client)
    if (!rule) return NO_CLAIM
    const tools = rule.tools.length === 0 ? [] : toolRules(rule, [message])
    return [rule, ...tools].flatMap(({ running }) => running ?? [])
  }

  #tooOften(client: string, { limits }: Rule, bucket: Bucket, waitMs: number, glob?: string): Refusal {
    const { perMinute } = bucket
    const whose = { client, tier: limits.tier, service: this.#service, perMinute: String(perMinute) }
    const message =
      waitMs === Infinity
        ? `A batch must not have more requests than the client may send in a minute (${perMinute}).`
        : glob === undefined
          ? rateWords(whose)
          : `Client ${client} may call the tools ${glob} ${perMinute} times a minute, and has. Wait as long as Retry-After says; ` +
            `clients.${client}.limits in berth.yaml raises it.`
    const retryAfterS = waitMs === Infinity ? 60 : Math.max(1, Math.ceil(waitMs / 1000))
    return {
      status: 429,
      code: CODE.server,
      message,
      retryAfterS,
      because: 'rate_limit',
      rate: { limit: perMinute, remaining: bucket.left },
      data: { limit: 'requests_per_minute', allowed: perMinute },
    }
  }
}

/** What keeps one more request from running; undefined: nothing. */
export function fullOf(claim: Claim): Running | undefined {
  return claim.find(({ count, most }) => count >= most)
}

/** How many more the client may have running, by what its tier says of all its requests; 0: it says nothing. */
export function dueOf(claim: Claim): number {
  const all = claim.find(({ ofAll }) => ofAll)
  return all ? Math.max(0, all.most - all.count) : 0
}

export function occupy(claim: Claim): void {
  for (const running of claim) running.count++
}

/** @returns whether others may have waited for just that */
export function vacate(claim: Claim): boolean {
  const wasFull = fullOf(claim) !== undefined
  for (const running of claim) running.count--
  return wasFull
}

function toolRules({ tools }: Rule, messages: readonly Message[]): readonly ToolRule[] {
  return messages.flatMap((message) => {
    if (misspelled(message)) return tools
    // Also a notification: a careless server may run it all the same.
    if (message.kind === 'response' || !isMethod(message.method, CALL)) return []
    const found = message.params && uniqueMembers(message.text, message.params.start, NAME)
    // Nobody knows which of two the server takes.
    if (found?.twice !== undefined) return tools
    const span = found?.of['name']
    const name = span && stringAt(message.text, span)
    return name === undefined ? [] : tools.filter(({ glob }) => toolMatches(glob, name))
  })
}

function ruleOf(service: string, client: string, limits: ClientLimits, before: Rule | undefined): Rule {
  const { tier, perMinute, concurrent } = limits
  const tools = Object.entries(limits.tools ?? {}).map(([glob, pace]): ToolRule => {
    const was = before?.tools.find((each) => each.glob === glob)
    const words = `Client ${client} may have ${pace.concurrent} calls of the tools ${glob} under way at once. Try again when one is answered; clients.${client}.limits in berth.yaml allows more.`
    return {
      glob,
      bucket: bucketOf(pace.perMinute, was?.bucket),
      running: runningOf(pace.concurrent, { ofAll: false, words }, was?.running),
    }
  })
  return {
    limits,
    bucket: bucketOf(perMinute, before?.bucket),
    running: runningOf(concurrent, { ofAll: true, words: crowdWords({ client, tier, service }) }, before?.running),
    tools,
  }
}

function bucketOf(perMinute: number | undefined, before: Bucket | undefined): Bucket | undefined {
  if (perMinute === undefined) return undefined
  if (!before) return new Bucket(perMinute)
  before.perMinute = perMinute
  return before
}

/** One that had no limit counts what begins from now on. */
function runningOf(
  most: number | undefined,
  what: Pick<Running, 'ofAll' | 'words'>,
  before: Running | undefined,
): Running | undefined {
  // What runs must not keep anybody waiting for a limit that is none any more.
  if (before) Object.assign(before, { most: most ?? Infinity, words: what.words })
  if (most === undefined) return undefined
  return before ?? { count: 0, most, ...what }
}
