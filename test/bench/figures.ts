// What benchmarks say: quantiles, medians, tables.

import { createHistogram, type RecordableHistogram } from 'node:perf_hooks'

/** Milliseconds. */
export interface Latency {
  readonly count: number
  readonly p50: number
  readonly p99: number
  readonly max: number
}

/** Latencies of any number of calls in constant memory, to three digits. */
export class Latencies {
  readonly #histogram: RecordableHistogram = createHistogram({ lowest: 1, highest: 600_000_000, figures: 3 })

  /** Milliseconds; kept in microseconds. */
  record(ms: number): void {
    this.#histogram.record(Math.max(1, Math.round(ms * 1000)))
  }

  get summary(): Latency {
    const { count, max } = this.#histogram
    if (count === 0) return { count, p50: Number.NaN, p99: Number.NaN, max: Number.NaN }
    const at = (percentile: number): number => this.#histogram.percentile(percentile) / 1000
    return { count, p50: at(50), p99: at(99), max: max / 1000 }
  }
}

export function latencyOf(ms: readonly number[]): Latency {
  const latencies = new Latencies()
  for (const each of ms) latencies.record(each)
  return latencies.summary
}

export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Columns of equal width; the first row is the head, the first column text and the others numbers. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join(' | ')
  return [line(rows[0]!), widths.map((width) => '-'.repeat(width)).join('-|-'), ...rows.slice(1).map(line)].join('\n')
}

/** Three digits are more than any of these measurements deserves. */
export function digits(number: number): string {
  if (!Number.isFinite(number)) return '–'
  return Math.abs(number) >= 100 ? number.toFixed(0) : number.toPrecision(Math.abs(number) < 1 ? 2 : 3)
}

/** The time to the next of events that know nothing of each other: those who ask in step are a load of their own. */
export function exponential(meanMs: number): number {
  return -meanMs * Math.log(1 - Math.random())
}
