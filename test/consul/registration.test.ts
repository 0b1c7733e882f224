// The notation of Consul's agent API.

import { expect, test } from 'vitest'
import { definitionOf } from '../../src/consul/registration.ts'
import { registration } from './support.ts'

test.each([
  ['192.0.2.7', 'http://192.0.2.7:11100/healthz'],
  ['2001:db8::7', 'http://[2001:db8::7]:11100/healthz'],
])('checks an endpoint at %s', (address, url) => {
  const definition = definitionOf(registration('files', { address }), 'n1', '1.2.3')
  expect(definition).toMatchObject({ address, check: { http: url } })
})

test('says where TLS is spoken, and checks there', () => {
  const definition = definitionOf(registration('files', { scheme: 'https' }), 'n1', '1.2.3')
  expect(definition.meta).toMatchObject({ scheme: 'https' })
  expect(definition.check).toMatchObject({ http: 'https://127.0.0.1:11100/healthz', tls_skip_verify: true })
})

test('checks elsewhere what is reached there from the agent', () => {
  const definition = definitionOf(registration('files', { address: '127.0.0.1', checkHost: 'envoy' }), 'n1', '1.2.3')
  expect(definition).toMatchObject({ address: '127.0.0.1', check: { http: 'http://envoy:11100/healthz' } })
})
