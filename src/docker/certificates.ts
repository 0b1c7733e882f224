// The certificates of the engine that Berth brings up: an authority of its own, one for the server, one for Berth.

import { createPrivateKey, generateKeyPairSync, X509Certificate, type KeyObject } from 'node:crypto'
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { filesOfFolder, type TlsFiles } from './tls.ts'
import { makeCertificate, subjectAltName, type Certificate } from './x509.ts'

export interface EngineCertificates {
  readonly client: TlsFiles
  readonly server: TlsFiles
  /** Of the server's certificate; another one after a rotation. */
  readonly fingerprint: string
}

const DAY_MS = 86_400_000

export interface Lifetimes {
  readonly authorityDays: number
  readonly leafDays: number
}

/** For an engine whose certificates are looked at each time it is brought up. */
const LIFETIMES: Lifetimes = { authorityDays: 825, leafDays: 90 }
/** A machine whose clock is a little behind accepts a new certificate, too. */
const SKEW_MS = 5 * 60_000

const AUTHORITY_NAME = 'Berth Docker-in-Docker authority'
const SERVER_NAME = 'Berth Docker-in-Docker server'
const CLIENT_NAME = 'Berth Docker-in-Docker client'

interface Pair {
  readonly certificate: X509Certificate
  readonly privateKey: KeyObject
}

/**
 * Makes `ca`, `server` and `client` below the folder as far as they are missing, unreadable, of another authority, for
 * other names, or have less than a third of their life left. Keys have mode 0600 and belong to the present user. The
 * key of a renewed certificate is a new one.
 */
export function engineCertificates(
  folder: string,
  names: readonly string[],
  { authorityDays, leafDays } = LIFETIMES,
): EngineCertificates {
  const authorityFolder = join(folder, 'ca')
  const authority =
    usablePair(authorityFolder, () => true) ??
    issue(authorityFolder, authorityDays, { commonName: AUTHORITY_NAME, use: 'authority' })
  const isOfAuthority = ({ certificate }: Pair): boolean =>
    certificate.checkIssued(authority.certificate) && certificate.verify(authority.certificate.publicKey)

  const leaf = (name: string, commonName: string, use: Certificate['use']): Pair => {
    const isForNames = ({ certificate }: Pair): boolean =>
      typeof use !== 'object' || certificate.raw.includes(subjectAltName(use.names))
    const target = join(folder, name)
    const isUsable = (pair: Pair): boolean => isOfAuthority(pair) && isForNames(pair) && hasAuthority(target, authority)
    return usablePair(target, isUsable) ?? issue(target, leafDays, { commonName, use }, authority)
  }
  const server = leaf('server', SERVER_NAME, { names })
  leaf('client', CLIENT_NAME, 'client')
  return {
    client: filesOfFolder(join(folder, 'client')),
    server: filesOfFolder(join(folder, 'server')),
    fingerprint: server.certificate.fingerprint256,
  }
}

export interface CertificateExpiry {
  readonly authority: string
  readonly server: string
  readonly client: string
}

/** Until when the certificates of the folder are valid, ISO 8601; undefined: they are not all there. */
export function certificateExpiry(folder: string): CertificateExpiry | undefined {
  const endOf = (name: string): string =>
    new X509Certificate(readFileSync(filesOfFolder(join(folder, name)).cert)).validToDate.toISOString()
  try {
    return { authority: endOf('ca'), server: endOf('server'), client: endOf('client') }
  } catch {
    return undefined
  }
}

/** Undefined also for what a crash or somebody's hand left half done: it is made again. */
function usablePair(folder: string, isUsable: (pair: Pair) => boolean): Pair | undefined {
  try {
    const { cert, key } = filesOfFolder(folder)
    const certificate = new X509Certificate(readFileSync(cert))
    const privateKey = createPrivateKey(readFileSync(key))
    const pair = { certificate, privateKey }
    return certificate.checkPrivateKey(privateKey) && isFresh(certificate) && isUsable(pair) ? pair : undefined
  } catch {
    return undefined
  }
}

function isFresh({ validFromDate, validToDate }: X509Certificate): boolean {
  const now = Date.now()
  const left = validToDate.getTime() - now
  return validFromDate.getTime() <= now && left >= (validToDate.getTime() - validFromDate.getTime()) / 3
}

function hasAuthority(folder: string, authority: Pair): boolean {
  return readFileSync(filesOfFolder(folder).ca, 'utf8') === authority.certificate.toString()
}

/** @param authority absent for the authority itself, which signs with its own key */
function issue(
  folder: string,
  days: number,
  { commonName, use }: Pick<Certificate, 'commonName' | 'use'>,
  authority?: Pair,
): Pair {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const issuer = authority
    ? { commonName: AUTHORITY_NAME, privateKey: authority.privateKey }
    : { commonName, privateKey }
  const now = Date.now()
  const [notBefore, notAfter] = [new Date(now - SKEW_MS), new Date(now + days * DAY_MS)]
  const pem = makeCertificate({ commonName, publicKey, issuer, notBefore, notAfter, use })

  const { ca, cert, key } = filesOfFolder(folder)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  if (authority) writeWhole(ca, authority.certificate.toString(), 0o644)
  writeWhole(key, privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 0o600)
  writeWhole(cert, pem, 0o644)
  return { certificate: new X509Certificate(pem), privateKey }
}

/** Readers see the old file or the new one, and nobody but this user sees any part of a key. */
function writeWhole(path: string, text: string, mode: number): void {
  const beside = `${path}.new`
  rmSync(beside, { force: true })
  writeFileSync(beside, text, { mode, flag: 'wx' })
  renameSync(beside, path)
}
