import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/bed/global-setup.ts'],
    // Real engines on a busy machine; what is waited for has deadlines of its own.
    testTimeout: 60_000,
    hookTimeout: 180_000,
    // dockerd takes up to 5 s to stop while somebody listens to its events.
    teardownTimeout: 60_000,
  },
})
