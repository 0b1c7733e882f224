// Connections to engines behind TLS: which files they need, and what can be wrong with them, in words.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import type { TlsFiles } from '../adapter/spec.ts'

export type { TlsFiles }

/** Docker's own names in a folder: `ca.pem`, `cert.pem`, `key.pem`. */
export function filesOfFolder(folder: string): TlsFiles {
  return { ca: join(folder, 'ca.pem'), cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
}

/** A file of this side is missing, unreadable, wrong or out of date. */
export class TlsFileError extends Error {
  override readonly name = 'TlsFileError'
  readonly remedy: string

  constructor(message: string, remedy: string, options?: ErrorOptions) {
    super(message, options)
    this.remedy = remedy
  }
}

interface Material {
  readonly ca: Buffer
  readonly cert: Buffer
  readonly key: Buffer
}

/**
 * Connects with both sides' certificates. The files are read now, so that renewed ones count for every new connection.
 *
 * @throws {TlsFileError}
 */
export function connectTls(host: string, port: number, files: TlsFiles): TLSSocket {
  return connect({ host, port, ...(isIP(host) === 0 && { servername: host }), ...readMaterial(files) })
}

function readMaterial(files: TlsFiles): Material {
  // A renewal replaces one file after the other, and this may have come in between.
  const found = read(files)
  const whole = belongTogether(found) ? found : read(files)
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(whole.cert)
  } catch (error) {
    throw new TlsFileError(`${files.cert} is no certificate in PEM.`, 'Put the right file there.', { cause: error })
  }
  if (certificate.validToDate.getTime() < Date.now()) {
    const day = certificate.validToDate.toISOString().slice(0, 10)
    throw new TlsFileError(`The client certificate ${files.cert} expired on ${day}.`, 'Put a renewed one there.')
  }
  try {
    void new X509Certificate(whole.ca)
  } catch (error) {
    throw new TlsFileError(`${files.ca} is no certificate in PEM.`, 'Put the right file there.', { cause: error })
  }
  if (!belongTogether(whole)) {
    throw new TlsFileError(`${files.key} is not the key of ${files.cert}.`, 'Put both files of one pair there.')
  }
  return whole
}

function read(files: TlsFiles): Material {
  return { ca: readOne(files.ca), cert: readOne(files.cert), key: readOne(files.key) }
}

function readOne(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    const { code = 'unknown' } = error as NodeJS.ErrnoException
    const why = code === 'ENOENT' ? 'does not exist' : code === 'EACCES' ? 'may not be read by this user' : `: ${code}`
    const remedy = 'Put ca.pem, cert.pem and key.pem for this engine there, readable by the user of Berth.'
    throw new TlsFileError(`${file} ${why}.`, remedy, { cause: error })
  }
}

function belongTogether({ cert, key }: Material): boolean {
  try {
    return new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch {
    return false
  }
}

const UNKNOWN_AUTHORITY = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
])
/** OpenSSL's own words: the code is EPROTO where the handshake failed while something was written. */
const REFUSED_CERTIFICATE =
  /alert (bad certificate|certificate \w+|unsupported certificate|unknown ca|access denied|decrypt error)/
const NO_TLS = /wrong version number|packet length too long|http request/

/** What is wrong and what to do; undefined when the error is none of TLS. */
export function explainTls(error: unknown): readonly [message: string, remedy: string] | undefined {
  if (error instanceof TlsFileError) return [error.message, error.remedy]
  const { code: found, message } = error as Error & { readonly code?: unknown }
  // That of a DOMException is a number.
  const code = typeof found === 'string' ? found : ''
  if (code === 'CERT_HAS_EXPIRED') {
    return ['The certificate of the Docker engine has expired.', "Renew it on the engine's machine."]
  }
  if (code === 'CERT_NOT_YET_VALID') {
    return ['The certificate of the Docker engine is not valid yet.', 'Set the clocks of both machines right.']
  }
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const remedy = "Reach the engine by a name of its certificate, or have this one added on the engine's machine."
    return ['The certificate of the Docker engine is for another host.', remedy]
  }
  if (UNKNOWN_AUTHORITY.has(code)) {
    return [
      'The certificate of the Docker engine is of another authority than the one in ca.pem.',
      'Use the ca.pem that belongs to this engine.',
    ]
  }
  const ofOpenssl = code === 'EPROTO' || code.startsWith('ERR_SSL_')
  if (ofOpenssl && REFUSED_CERTIFICATE.test(message)) {
    return [
      'The Docker engine does not accept the client certificate.',
      'Use a cert.pem and key.pem of the authority that this engine trusts.',
    ]
  }
  if (ofOpenssl && NO_TLS.test(message)) {
    return [
      'What answers at the address of the Docker engine does not speak TLS.',
      'Use the port with TLS (2376 as a rule), or leave TLS out.',
    ]
  }
  return undefined
}
