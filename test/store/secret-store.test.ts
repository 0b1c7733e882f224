// Stored secrets in a real database with real key files: who can read them, and what a rotation leaves when it is cut off.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { OperatorError } from '../../src/model/operator-error.ts'
import { KeyFile, newKey } from '../../src/store/encryption-keys.ts'
import type { EncryptionKey } from '../../src/store/sealing.ts'
import { SecretStore } from '../../src/store/secret-store.ts'
import { secretRows } from '../../src/store/secrets.ts'
import { openStore, type Store } from '../../src/store/store.ts'

const VALUE = 'hunter2-is-the-value'

let folder: string
let store: Store
let file: KeyFile

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bss-'))
  store = openStore(join(folder, 'berth.db'))
  file = new KeyFile(folder)
})

afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true })
})

/** As the next process finds it. */
function opened(...given: EncryptionKey[]): SecretStore {
  store.close()
  store = openStore(join(folder, 'berth.db'))
  return new SecretStore(store.secrets, file, given)
}

/** What any program can do to the file. */
function sql(text: string, ...values: (string | Uint8Array)[]): void {
  const db = new DatabaseSync(join(folder, 'berth.db'))
  db.prepare(text).run(...values)
  db.close()
}

function messageOf(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    expect(`${(error as Error).stack} ${JSON.stringify(error)}`).not.toContain('hunter2')
    return (error as Error).message
  }
  return expect.fail('it did not throw')
}

test('that cannot be stored, because somebody else has the database, leaves the rest as it was', () => {
  const path = join(folder, 'berth.db')
  const [other, db] = [new DatabaseSync(path), new DatabaseSync(path, { timeout: 0 })]
  db.exec('PRAGMA synchronous = NORMAL')
  const rows = secretRows(db)
  const before = db.prepare('PRAGMA synchronous').get()
  other.exec('BEGIN IMMEDIATE')
  expect(() => rows.remove('A')).toThrow('database is locked')
  other.exec('COMMIT')
  expect(db.prepare('PRAGMA synchronous').get()).toEqual(before)
  expect(rows.remove('A')).toBe(false)
  for (const each of [db, other]) each.close()
})

describe('a secret', () => {
  test('is there for the next process, until it is removed', () => {
    const secrets = opened()
    expect([secrets.list(), readdirSync(folder).includes('encryption-key')]).toEqual([[], false])
    expect([secrets.set('B', 'two'), secrets.set('A', VALUE)]).toEqual(['created', 'created'])
    const next = opened()
    expect([next.value('A'), next.value('B')]).toEqual([VALUE, 'two'])
    expect(next.list()).toEqual(
      ['A', 'B'].map((name) => ({ name, createdAt: expect.any(Number), updatedAt: expect.any(Number) })),
    )
    expect([next.remove('A'), next.remove('A')]).toEqual([true, false])
    expect(messageOf(() => opened().value('A'))).toBe('no secret A is stored')
    expect(statSync(join(folder, 'encryption-key')).mode & 0o777).toBe(0o600)
  })

  test('has another revision for each new value, also one that it had before, and none for a rotation', () => {
    const secrets = opened()
    const seen = new Set<string | undefined>([undefined])
    for (const value of ['one', 'two', 'one']) {
      secrets.set('A', value)
      seen.add(secrets.revision('A'))
    }
    secrets.remove('A')
    expect(secrets.revision('A')).toBeUndefined()
    secrets.set('A', 'one')
    const last = secrets.revision('A')
    seen.add(last)
    expect(seen.size).toBe(5)
    expect([secrets.set('A', 'one'), secrets.rotate()]).toEqual(['unchanged', 1])
    expect([secrets.revision('A'), opened().revision('A')]).toEqual([last, last])
  })

  test('is readable nowhere in the state folder, nor is its key in the database', () => {
    const secrets = opened()
    for (let i = 0; i < 20; i++) secrets.set(`S${i}`, `${VALUE}-${i}`)
    secrets.set('S0', `${VALUE}-again`)
    secrets.remove('S1')
    secrets.rotate()
    const key = readFileSync(file.path, 'utf8').trim()
    for (const name of readdirSync(folder)) {
      const bytes = readFileSync(join(folder, name))
      expect(bytes.includes('hunter2'), name).toBe(false)
      if (name === 'encryption-key') continue
      expect(bytes.includes(Buffer.from(key, 'hex')) || bytes.includes(key), name).toBe(false)
    }
    // A copy of the database alone is useless.
    const copy = mkdtempSync(join(tmpdir(), 'bss-'))
    try {
      for (const name of readdirSync(folder).filter((each) => each.startsWith('berth.db')))
        cpSync(join(folder, name), join(copy, name))
      const other = openStore(join(copy, 'berth.db'))
      expect(other.secrets.list()).toHaveLength(19)
      expect(() => new SecretStore(other.secrets, new KeyFile(copy), [newKey()])).toThrow(OperatorError)
      other.close()
    } finally {
      rmSync(copy, { recursive: true })
    }
  })

  test('may be one of a thousand', () => {
    const secrets = opened()
    secrets.set('A', 'a')
    sql(`WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 999)
      INSERT INTO secrets SELECT 'S' || n, key_id, randomblob(12), sealed, revision, 0, 0 FROM secrets, i`)
    const full = opened()
    expect(messageOf(() => full.set('ONE_MORE', 'x'))).toContain('1000 secrets are stored')
    expect(full.set('A', 'b')).toBe('updated')
  })
})

describe('what somebody else did to the database', () => {
  test('is noticed for each byte of what is encrypted, and is told in words', () => {
    opened().set('A', VALUE)
    const { nonce, sealed, keyId } = store.secrets.get('A')!
    for (const [column, good] of [
      ['nonce', nonce],
      ['sealed', sealed],
    ] as const)
      for (let at = 0; at < good.length; at++) {
        const bad = Buffer.from(good)
        bad[at]! ^= 0xff
        sql(`UPDATE secrets SET ${column} = ?`, bad)
        const reason = 'the stored secret A was altered or damaged in the database'
        const secrets = new SecretStore(store.secrets, file, [])
        expect(messageOf(() => secrets.value('A'))).toBe(reason)
        expect([...secrets.unreadable()]).toEqual([['A', reason]])
        sql(`UPDATE secrets SET ${column} = ?`, good)
      }
    expect(opened().value('A')).toBe(VALUE)
    sql("UPDATE secrets SET key_id = 'x'")
    expect(() => opened()).toThrow(OperatorError)
    sql('UPDATE secrets SET key_id = ?', keyId)
    expect(opened().value('A')).toBe(VALUE)
  })

  test('is noticed where two have changed places', () => {
    const secrets = opened()
    secrets.set('A', VALUE)
    secrets.set('B', `${VALUE}-of-b`)
    sql("UPDATE secrets SET name = CASE name WHEN 'A' THEN '~' ELSE 'A' END")
    sql("UPDATE secrets SET name = 'B' WHERE name = '~'")
    const next = opened()
    for (const name of ['A', 'B']) expect(messageOf(() => next.value(name))).toContain('altered or damaged')
    expect(messageOf(() => next.rotate())).toContain('cannot be decrypted')
    // It can be set again, and then the other one can be removed.
    expect([next.set('A', 'new'), next.remove('B'), next.rotate(), next.value('A')]).toEqual([
      'updated',
      true,
      1,
      'new',
    ])
  })
})

describe('the key', () => {
  test('of the environment leaves no file', () => {
    const key = newKey()
    opened(key).set('A', VALUE)
    expect(opened(key).value('A')).toBe(VALUE)
    expect(readdirSync(folder)).not.toContain('encryption-key')
  })

  test("that is another, or lost, is the operator's mistake at once, and nothing is made or changed", () => {
    opened(newKey()).set('A', VALUE)
    for (const given of [[], [newKey()]]) {
      const message = messageOf(() => opened(...given))
      expect(message).toMatch(/^None of the stored secrets \(A\) was encrypted with a key that is here\./)
      expect(message).toContain('berth secret rm')
    }
    expect(readdirSync(folder)).not.toContain('encryption-key')
    expect(store.secrets.list()).toHaveLength(1)
  })

  test('that is missing for some takes the others nothing', () => {
    const [one, two] = [newKey(), newKey()]
    opened(one).set('A', VALUE)
    opened(two, one).set('B', 'two')
    const secrets = opened(two)
    expect(secrets.value('B')).toBe('two')
    expect(messageOf(() => secrets.value('A'))).toBe('the stored secret A was encrypted with a key that is not here')
    expect([...secrets.unreadable().keys()]).toEqual(['A'])
  })
})

describe('rotation', () => {
  const keyIds = () => new Set(store.secrets.list().map(({ keyId }) => keyId))
  const filed = () => file.read().map(({ id }) => id)

  test('of a generated key: another one, and the earlier opens nothing any more', () => {
    const secrets = opened()
    for (const name of ['A', 'B', 'C']) secrets.set(name, `${VALUE}-${name}`)
    const before = file.read()
    const nonces = ['A', 'B', 'C'].map((name) => store.secrets.get(name)!.nonce)
    expect(secrets.rotate()).toBe(3)
    expect(filed()).toHaveLength(1)
    expect(filed()).not.toEqual(before.map(({ id }) => id))
    expect(keyIds()).toEqual(new Set(filed()))
    expect(['A', 'B', 'C'].map((name) => store.secrets.get(name)!.nonce)).not.toEqual(nonces)
    for (const name of ['A', 'B', 'C']) expect(opened().value(name)).toBe(`${VALUE}-${name}`)
    rmSync(file.path)
    file.write(before)
    expect(() => opened()).toThrow(OperatorError)
  })

  test('of keys of the environment: the first one is taken, a generated one goes', () => {
    const [one, two] = [newKey(), newKey()]
    opened().set('A', VALUE)
    opened(one).set('B', 'two')
    expect(keyIds().size).toBe(2)
    expect(opened(two, one).rotate()).toBe(2)
    expect([keyIds(), readdirSync(folder).includes('encryption-key')]).toEqual([new Set([two.id]), false])
    const secrets = opened(two)
    expect([secrets.value('A'), secrets.value('B')]).toEqual([VALUE, 'two'])
    expect(messageOf(() => secrets.rotate())).toContain('put it before the first')
  })

  /** Lets so many steps pass, then nothing more: as after a SIGKILL, whose `finally` nobody runs. */
  class Crash extends Error {}

  function crashing(steps: number): { secrets: SecretStore; left: () => number } {
    let left = steps
    const step = (): void => {
      if (left-- <= 0) throw new Crash()
    }
    const around = <A extends unknown[], T>(work: (...args: A) => T) => {
      return (...args: A): T => {
        step()
        const result = work(...args)
        step()
        return result
      }
    }
    const rows = store.secrets
    const secrets = new SecretStore(
      {
        ...rows,
        set: around((...args: Parameters<typeof rows.set>) => rows.set(...args)),
        remove: around((...args: Parameters<typeof rows.remove>) => rows.remove(...args)),
        reseal: around((all) =>
          rows.reseal(
            (function* () {
              for (const each of all) {
                step()
                yield each
              }
            })(),
          ),
        ),
      },
      {
        path: file.path,
        read: () => file.read(),
        clean: () => file.clean(),
        remove: around(() => file.remove()),
        write: around((keys) => {
          // Half of it is there.
          writeFileSync(`${file.path}.new`, 'half')
          step()
          file.write(keys)
        }),
      },
      [],
    )
    return { secrets, left: () => left }
  }

  function survives(work: () => unknown): boolean {
    try {
      work()
      return true
    } catch (error) {
      if (error instanceof Crash) return false
      throw error
    }
  }

  test('that is cut off at any step loses nothing, and the next process finishes it', () => {
    const names = ['A', 'B', 'C']
    const secrets = opened()
    for (const name of names) secrets.set(name, `${VALUE}-${name}`)
    let cut = 0
    for (let steps = 0; ; steps++) {
      opened()
      const before = filed()
      const { secrets: doomed, left } = crashing(steps)
      if (survives(() => doomed.rotate())) {
        expect(left()).toBe(0)
        break
      }
      cut++
      const next = opened()
      for (const name of names) expect(next.value(name), `after ${steps} steps`).toBe(`${VALUE}-${name}`)
      expect(filed()).toHaveLength(1)
      expect(keyIds()).toEqual(new Set(filed()))
      // From the moment that the new key is on the disk it is the one.
      expect(filed()[0] === before[0]).toBe(steps <= 1)
      expect(readdirSync(folder)).not.toContain('encryption-key.new')
    }
    // Two writes of the file with three steps, the transaction with two and one for each secret.
    expect(cut).toBe(2 * 3 + 2 + names.length)
  })

  test('among any changes, each cut off at any step or not, loses nothing', () => {
    const name = fc.constantFrom('A', 'B', 'C')
    const change = fc.oneof(
      fc.record({ kind: fc.constant('set' as const), name, value: fc.string({ minLength: 1 }) }),
      fc.record({ kind: fc.constant('remove' as const), name }),
      fc.record({ kind: fc.constant('rotate' as const) }),
      fc.record({ kind: fc.constant('open' as const) }),
    )
    const steps = fc.oneof(fc.constant(Infinity), fc.nat(12))
    fc.assert(
      fc.property(fc.array(fc.tuple(change, steps), { maxLength: 12 }), (changes) => {
        for (const { name } of store.secrets.list()) store.secrets.remove(name)
        const model = new Map<string, string>()
        for (const [change, steps] of changes) {
          opened()
          const { secrets } = crashing(steps)
          const done = survives(() => {
            if (change.kind === 'set') secrets.set(change.name, change.value)
            if (change.kind === 'remove') secrets.remove(change.name)
            if (change.kind === 'rotate') secrets.rotate()
          })
          const next = opened()
          const found = new Map(next.list().map(({ name }) => [name, next.value(name)]))
          // One that was cut off has happened or not.
          const after = new Map(model)
          if (change.kind === 'set') after.set(change.name, change.value)
          if (change.kind === 'remove') after.delete(change.name)
          const possible = done ? [after] : [model, after]
          expect(possible).toContainEqual(found)
          model.clear()
          for (const [name, value] of found) model.set(name, value)
          expect(filed().length).toBeLessThanOrEqual(1)
        }
      }),
      { numRuns: 25 },
    )
  })

  test('that is killed loses nothing', async () => {
    const secrets = opened()
    for (let i = 0; i < 30; i++) secrets.set(`S${i}`, `${VALUE}-${i}`)
    let rotated = 0
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, [join(import.meta.dirname, 'rotating.ts'), folder], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const exit = once(child, 'exit')
      const [first] = (await once(child.stdout, 'data')) as [Buffer]
      rotated += first.toString().split('\n').length - 1
      const deadline = performance.now() + round * 7.3
      while (performance.now() < deadline) await new Promise(setImmediate)
      child.kill('SIGKILL')
      expect(await exit).toEqual([null, 'SIGKILL'])
      const next = opened()
      for (let i = 0; i < 30; i++) expect(next.value(`S${i}`)).toBe(`${VALUE}-${i}`)
      expect(keyIds()).toEqual(new Set(filed()))
    }
    expect(rotated).toBeGreaterThanOrEqual(6)
  }, 60_000)
})
