// Durations and sizes as people write them, in the configuration and in labels.

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1000,
  mb: 1000 ** 2,
  gb: 1000 ** 3,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
}

/** Milliseconds of `250ms`, `60s`, `10m`, `2h`, `1d`; undefined for anything else. */
export function parseDuration(text: string): number | undefined {
  return parseQuantity(text, /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/, DURATION_UNITS)
}

/** Bytes of `512`, `16MB`, `2GB`, `4MiB`; undefined for anything else. */
export function parseSize(text: string): number | undefined {
  return parseQuantity(text, /^(\d+(?:\.\d+)?)\s*(b|kb|mb|gb|kib|mib|gib)?$/, SIZE_UNITS)
}

function parseQuantity(text: string, shape: RegExp, units: Readonly<Record<string, number>>): number | undefined {
  const match = shape.exec(text.trim().toLowerCase())
  if (!match) return undefined
  return Math.round(Number(match[1]) * units[match[2] ?? 'b']!)
}

const UNITS = [
  { seconds: 86_400, sign: 'd' },
  { seconds: 3600, sign: 'h' },
  { seconds: 60, sign: 'min' },
  { seconds: 1, sign: 's' },
]

/** The largest unit and the next, e.g. `3 h 20 min`. */
export function durationWords(seconds: number): string {
  const largest = UNITS.findIndex((unit) => seconds >= unit.seconds)
  const amounts = UNITS.map((unit, i) => {
    const above = UNITS[i - 1]
    return { amount: Math.floor((above ? seconds % above.seconds : seconds) / unit.seconds), sign: unit.sign }
  })
  const shown = amounts.slice(largest, largest + 2).filter(({ amount }) => amount > 0)
  return shown.map(({ amount, sign }) => `${amount} ${sign}`).join(' ') || '0 s'
}
