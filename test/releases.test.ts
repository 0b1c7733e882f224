// What is decided about releases, kept in a real store.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, expect, test, vi } from 'vitest'

import { rolesOf } from '../src/model/release.ts'
import type { Service } from '../src/model/service.ts'
import { Releases } from '../src/releases.ts'
import { openStore, type Store } from '../src/store/store.ts'
import { canary, program, released, service } from './fixtures/world.ts'

let folder: string
let store: Store
const changed = vi.fn<() => void>()

beforeEach(() => {
  vi.useFakeTimers()
  folder = mkdtempSync(join(tmpdir(), 'brl-'))
  store = openStore(join(folder, 'berth.db'))
})
afterEach(() => {
  store.close()
  rmSync(folder, { recursive: true, force: true })
  vi.useRealTimers()
  changed.mockClear()
})

const make = () => new Releases({ store, changed, log: () => undefined, now: Date.now })
const roles = (releases: Releases, given: Service) => rolesOf(releases.versions(given)).map(({ role }) => role)

test('a decision outlives the control plane, for as long as the release is written as it was', () => {
  const given = released(canary('two', 10))
  const first = make()
  expect(roles(first, given)).toEqual(['stable', 'canary'])
  first.promote('files')
  expect(changed).toHaveBeenCalledTimes(1)

  const second = make()
  expect(roles(second, given)).toEqual(['stable', 'leaving'])
  expect(second.decision('files')).toMatchObject({ outcome: 'promoted', reason: undefined })
  second.rollBack('files', 'It failed.')

  const third = make()
  expect(roles(third, given)).toEqual(['stable', 'leaving'])
  expect(third.decision('files')).toMatchObject({ outcome: 'rolled-back', reason: 'It failed.' })
  expect(roles(third, released(canary('two', 20)))).toEqual(['stable', 'canary'])
  expect(store.releases()).toEqual([])
})

test('a promoted version that is written down is remembered by its name; another one in its place is not', () => {
  const releases = make()
  releases.versions(released(canary('two', 10)))
  releases.promote('files')
  const written = service('files', { backend: program('two') })
  expect(releases.versions(written).stable.variant).toMatch(/^[0-9a-f]{8}$/)
  expect(releases.decision('files')).toBe(undefined)
  expect(make().versions(written).stable.variant).toMatch(/^[0-9a-f]{8}$/)
  expect(releases.versions(service('files', { backend: program('three') })).stable.variant).toBe(undefined)
  expect(store.releases()).toEqual([])
})

test('when the time of the earlier version is over, it is said once', () => {
  const given = released({ ...canary('two', 10), drainMs: 60_000 })
  const releases = make()
  releases.versions(given)
  releases.promote('files')
  expect(roles(releases, given)).toEqual(['stable', 'leaving'])
  changed.mockClear()
  vi.advanceTimersByTime(59_000)
  expect(changed).not.toHaveBeenCalled()
  vi.advanceTimersByTime(2000)
  expect(changed).toHaveBeenCalledTimes(1)
  expect(roles(releases, given)).toEqual(['stable'])
  expect(vi.getTimerCount()).toBe(0)
})

test('of a service that is gone nothing is kept', () => {
  const releases = make()
  releases.versions(released(canary('two', 10)))
  releases.promote('files')
  releases.retain(new Set(['files']))
  expect(store.releases()).toHaveLength(1)
  releases.retain(new Set(['other']))
  expect(store.releases()).toEqual([])
})
