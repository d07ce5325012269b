-- The application's role and database, as our own clusters have them.
\getenv password APP_PASSWORD
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE app OWNER app;
