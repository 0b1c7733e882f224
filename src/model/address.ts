// Addresses of this machine as listeners, URLs and Host headers have them.

/** An address as a URL or a Host header has it. */
export function bracketed(address: string): string {
  return address.includes(':') ? `[${address}]` : address
}

/** All addresses of the machine, which is one to listen on and none to call. */
export function isWildcard(bind: string): boolean {
  return bind === '0.0.0.0' || /^[0:]*$/.test(bind)
}

export function isLoopback(bind: string): boolean {
  return /^127(?:\.\d{1,3}){3}$/.test(bind) || bind === '::1'
}

/** Where that which listens on `bind` is called: with all addresses, that of this machine alone. */
export function callAddress(bind: string): string {
  if (!isWildcard(bind)) return bind
  return bind.includes(':') ? '::1' : '127.0.0.1'
}

/** The same URL at another host; the same URL without one. */
export function atHost(url: string, host: string | undefined): string {
  return host === undefined ? url : url.replace(/^(https?:\/\/)(?:\[[^\]]*\]|[^:/]*)/, `$1${bracketed(host)}`)
}
