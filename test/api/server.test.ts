import { chmod, mkdtemp, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Hono } from 'hono'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { serveApi } from '../../src/api/server.ts'
import { adminToken, readAdminToken } from '../../src/api/token.ts'

const LOOPBACK = '127.0.0.1'

describe('the server', () => {
  const app = new Hono().get('/', (context) => context.text('here'))

  test('answers until it is closed, which cuts idle connections', async () => {
    const server = await serveApi(app, { host: LOOPBACK, port: 0 })
    const response = await fetch(server.url)
    expect(await response.text()).toBe('here')
    await server.close()
    await expect(fetch(server.url)).rejects.toThrow()
  })

  test('a port that is taken is said with its number and what to do', async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, LOOPBACK, resolve))
    const address = other.address()
    const port = typeof address === 'object' ? address!.port : 0
    try {
      await expect(serveApi(app, { host: LOOPBACK, port })).rejects.toMatchObject({
        name: 'OperatorError',
        message:
          `The control API cannot start: Port ${port} on 127.0.0.1 is taken by another program. ` +
          'Stop it, or set ports.api in the configuration.',
      })
    } finally {
      other.close()
    }
  })

  test('so is an address that is not of this machine', async () => {
    await expect(serveApi(app, { host: '192.0.2.1', port: 0 })).rejects.toThrow('is not an address of this machine')
  })
})

describe("the administrator's token", () => {
  let home: string
  beforeEach(async () => {
    home = join(await mkdtemp(join(tmpdir(), 'bat-')), 'state')
  })
  afterEach(async () => {
    await rm(join(home, '..'), { recursive: true, force: true })
  })

  test('is made once, private, also by several at once', async () => {
    expect(await readAdminToken(home)).toBeUndefined()
    const tokens = new Set(await Promise.all([adminToken(home), adminToken(home), adminToken(home)]))
    expect(tokens.size).toBe(1)
    const [token] = tokens
    expect(Buffer.from(token!, 'base64url')).toHaveLength(32)
    expect(await readFile(join(home, 'admin-token'), 'utf8')).toBe(`${token}\n`)
    expect((await stat(join(home, 'admin-token'))).mode & 0o777).toBe(0o600)
    expect(await readdir(home)).toEqual(['admin-token'])
    expect(await adminToken(home)).toBe(token)
  })

  test('is made private again', async () => {
    const token = await adminToken(home)
    await chmod(join(home, 'admin-token'), 0o644)
    expect(await adminToken(home)).toBe(token)
    expect((await stat(join(home, 'admin-token'))).mode & 0o777).toBe(0o600)
  })

  test('that is empty is not used', async () => {
    await adminToken(home)
    await writeFile(join(home, 'admin-token'), '\n')
    await expect(adminToken(home)).rejects.toThrow(/holds no token. Remove it/)
  })
})
