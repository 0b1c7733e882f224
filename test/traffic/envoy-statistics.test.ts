import { expect, test } from 'vitest'

import { requestMetrics } from '../../src/traffic/envoy-statistics.ts'

const line = (status: number, flags: string, value: number, client = 'codex'): string =>
  `envoy_berth_requests{service="files",status="${status}",method="",client="${client}",tool="",flags="${flags}"} ${value}`

test('counts with other flags are one; each refusal has its reason', async () => {
  const said = [
    '# TYPE envoy_berth_requests counter',
    line(200, '-', 3),
    line(200, 'DC', 1),
    line(429, 'RL -', 2),
    line(429, 'UO -', 4),
    line(429, '- -', 8),
    line(429, '- rate_limit', 256),
    line(429, '- concurrency', 512),
    line(503, 'UH -', 16),
    line(503, '-', 32),
    line(504, 'UT', 64),
    line(403, '-', 128, ''),
  ].join('\n')
  const { text, series } = await requestMetrics(said)
  expect(series).toBe(11)
  expect(text.split('\n').filter((each) => !each.startsWith('#'))).toEqual([
    'mcp_requests_total{service="files",status="200",method="",client="codex",tool=""} 4',
    'mcp_requests_total{service="files",status="429",method="",client="codex",tool=""} 782',
    'mcp_requests_total{service="files",status="503",method="",client="codex",tool=""} 48',
    'mcp_requests_total{service="files",status="504",method="",client="codex",tool=""} 64',
    'mcp_requests_total{service="files",status="403",method="",client="",tool=""} 128',
    'mcp_rejections_total{service="files",client="codex",reason="rate_limit"} 258',
    'mcp_rejections_total{service="files",client="codex",reason="concurrency"} 516',
    'mcp_rejections_total{service="files",client="codex",reason="queue"} 8',
    'mcp_rejections_total{service="files",client="codex",reason="not_started"} 16',
    'mcp_rejections_total{service="files",client="codex",reason="unavailable"} 32',
    'mcp_rejections_total{service="files",client="",reason="forbidden"} 128',
    '',
  ])
})

test('durations are in seconds', async () => {
  const labels = 'service="files",status="200",method="tools/call",client="a.b",tool="read"'
  const said = [
    '# TYPE envoy_berth_duration_us histogram',
    `envoy_berth_duration_us_bucket{${labels},le="5000"} 1`,
    `envoy_berth_duration_us_bucket{${labels},le="6e+07"} 2`,
    `envoy_berth_duration_us_bucket{${labels},le="+Inf"} 3`,
    `envoy_berth_duration_us_sum{${labels}} 2500000.5`,
    `envoy_berth_duration_us_count{${labels}} 3`,
  ].join('\n')
  const { text } = await requestMetrics(said)
  expect(text.split('\n').filter((each) => each.includes('files'))).toEqual([
    `mcp_request_duration_seconds_bucket{${labels},le="0.005"} 1`,
    `mcp_request_duration_seconds_bucket{${labels},le="60"} 2`,
    `mcp_request_duration_seconds_bucket{${labels},le="+Inf"} 3`,
    `mcp_request_duration_seconds_sum{${labels}} 2.5000005`,
    `mcp_request_duration_seconds_count{${labels}} 3`,
  ])
})

test('what is too long for one turn loses no line', async () => {
  const many = Array.from({ length: 20_000 }, (_, i) => line(200, '-', 1, `client-${i}`))
  const { text, series } = await requestMetrics(many.join('\n'))
  expect(series).toBe(20_000)
  expect(text.split('\n').filter((each) => each.startsWith('mcp_requests_total{'))).toHaveLength(20_000)
})
