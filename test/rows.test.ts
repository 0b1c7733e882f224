// The words for what Envoy refused.

import { expect, test } from 'vitest'

import { TYPE_OF } from '../src/compile/snapshot.ts'
import { refusalProblem } from '../src/rows.ts'

const refused = { node: 'berth', version: 'v', message: 'too short' }

test('what to do about a refused certificate is to write another one', () => {
  expect(refusalProblem({ ...refused, typeUrl: TYPE_OF.secrets, name: 'files:certificate' })).toEqual({
    about: 'service files',
    where: 'envoy',
    message: 'Envoy refused the Secret files:certificate: too short.',
    remedy: expect.stringMatching(/closes the connections .* another one in the place of the files \(envoy\.tls\)/),
  })
  expect(refusalProblem({ ...refused, typeUrl: TYPE_OF.routes, name: 'files' }).remedy).toMatch(/^The last good form/)
})
