/** The job service. */
export {};
