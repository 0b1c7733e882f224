// One-line JSON records on the adapter's stdout: bounded in size and rate, so that no traffic can fill the disk.

export type LogLevel = 'info' | 'warn' | 'error'
export type LogFields = Readonly<Record<string, string | number | boolean>>
export type Log = (level: LogLevel, msg: string, fields?: LogFields) => void

const VALUE_CHARACTERS = 1000
const BURST = 200
const PER_SECOND = 20

/** A log that gives each record to `write` as one line; records over the rate are counted and the count is told. */
export function createLog(write: (line: string) => void): Log {
  let allowance = BURST
  let refilledAt = Date.now()
  let dropped = 0

  return (level, msg, fields = {}) => {
    const now = Date.now()
    allowance = Math.min(BURST, allowance + ((now - refilledAt) / 1000) * PER_SECOND)
    refilledAt = now
    if (allowance < 1) {
      dropped++
      return
    }
    allowance--
    const record: Record<string, unknown> = { time: new Date(now).toISOString(), level, msg: cut(msg) }
    for (const [name, value] of Object.entries(fields)) record[name] = typeof value === 'string' ? cut(value) : value
    if (dropped > 0) record['dropped'] = dropped
    dropped = 0
    write(`${JSON.stringify(record)}\n`)
  }
}

function cut(text: string): string {
  return text.length <= VALUE_CHARACTERS ? text : `${text.slice(0, VALUE_CHARACTERS)}…`
}
