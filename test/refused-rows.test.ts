// What people are shown of services and of what Envoy refused.

import { expect, test } from 'vitest'

import { LDS, CDS } from '../src/xds/type-urls.ts'
import type { RefusedResource } from '../src/model/record.ts'
import { refusalProblem, serviceRow, type RowContext } from '../src/rows.ts'
import { service } from './fixtures/world.ts'

const REFUSED = { node: 'berth', typeUrl: LDS, name: 'files:11100', version: '2' }
const files = service('files')

function row(refused: RefusedResource) {
  const context: RowContext = {
    slots: [],
    bind: '127.0.0.1',
    gateway: 10_005,
    tuning: undefined,
    uncertified: () => undefined,
    refused: [refused],
    rollout: () => undefined,
    release: () => undefined,
  }
  return serviceRow({ service: files, port: 11_100, versions: { stable: files } }, context)
}

test('a service whose listener Envoy did not take is down, unless it has the last good form of it', () => {
  const good = { version: '1', value: Buffer.from('good') }
  const taken = "cannot bind '127.0.0.1:11100': Address already in use"
  const other = 'unable to open file /nowhere/access.log'
  expect(row({ ...REFUSED, message: taken })).toMatchObject({
    state: 'down',
    reason: `Envoy cannot listen on port 11100: ${taken}`,
  })
  expect(row({ ...REFUSED, message: taken, good })).toMatchObject({ state: 'down' })
  expect(row({ ...REFUSED, message: other })).toMatchObject({
    state: 'down',
    reason: `Envoy refused the listener: ${other}`,
  })
  expect(row({ ...REFUSED, message: other, good })).toMatchObject({ state: 'asleep', health: 'unknown' })
})

test('a refused resource is about its service, whatever the resource is called', () => {
  const about = (typeUrl: string, name: string) =>
    refusalProblem({ ...REFUSED, typeUrl, name, message: 'no such thing' }).about
  expect(about(LDS, 'files:11100')).toBe('service files')
  expect(about(LDS, 'gateway:10005')).toBe('gateway')
  expect(about(CDS, 'files~2x|alice@3|sse')).toBe('service files')
})
