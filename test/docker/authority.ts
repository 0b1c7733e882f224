// An authority of a test: certificates as engines and clients have them, also those that no sane one would issue.

import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { filesOfFolder, type TlsFiles } from '../../src/docker/tls.ts'
import { makeCertificate, type Certificate } from '../../src/docker/x509.ts'

const DAY_MS = 86_400_000

export class Authority {
  readonly certificate: string
  readonly #name: string
  readonly #keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })

  constructor(name = 'test authority') {
    this.#name = name
    const days = { notBefore: new Date(Date.now() - DAY_MS), notAfter: new Date(Date.now() + DAY_MS) }
    const issuer = { commonName: name, privateKey: this.#keys.privateKey }
    const { publicKey } = this.#keys
    this.certificate = makeCertificate({ commonName: name, publicKey, issuer, ...days, use: 'authority' })
  }

  /** Writes ca.pem, cert.pem and key.pem into the folder; `from` and `to` are days from now. */
  issue(folder: string, use: Certificate['use'], { from = -1, to = 1 } = {}): TlsFiles {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const certificate = makeCertificate({
      commonName: 'test',
      publicKey,
      issuer: { commonName: this.#name, privateKey: this.#keys.privateKey },
      notBefore: new Date(Date.now() + from * DAY_MS),
      notAfter: new Date(Date.now() + to * DAY_MS),
      use,
    })
    mkdirSync(folder, { recursive: true })
    const files = filesOfFolder(folder)
    writeFileSync(files.ca, this.certificate)
    writeFileSync(files.cert, certificate)
    writeFileSync(files.key, privateKey.export({ type: 'pkcs8', format: 'pem' }))
    return files
  }
}
